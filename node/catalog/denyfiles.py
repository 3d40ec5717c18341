"""Deny files of a box: read at the start, and again when they change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from ...protocol.cid import Cid
from ...protocol.denylist import Denylist
from ...protocol.errors import RemoteError, UsageError

log = logging.getLogger(__name__)

FILE_LIMIT_BYTES = 256 << 20
LOOK_S = 5.0

_Stamp = tuple[int, int, int]


class DenyFiles:
    """The ``[deny] files`` of one box; any of them may refuse, none takes another's refusal back."""

    def __init__(self, paths: Sequence[str], registry: CollectorRegistry) -> None:
        """Read every file. Blocking.

        Raises:
            UsageError: for a file that cannot be read: what is to be refused must be known.

        """
        self._paths = [Path(text) for text in paths]
        self._stamps: dict[Path, _Stamp] = {}
        self._read: dict[Path, Denylist] = {}
        self.lists: tuple[Denylist, ...] = ()
        self.version = 0
        """Grows whenever a file was read again."""
        rules = Gauge("farcast_node_deny_rules", "Rules of the deny files.", registry=registry)
        rules.set_function(lambda: float(sum(one.rules for one in self.lists)))
        unknown = Gauge(
            "farcast_node_deny_unknown_lines", "Lines of the deny files that are no rule.", registry=registry
        )
        unknown.set_function(lambda: float(sum(len(one.unknown) for one in self.lists)))
        for path in self._paths:
            try:
                self._look(path)
            except (OSError, ValueError, RemoteError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                message = f"settings.toml: [deny] files: {path} cannot be read: {why}"
                raise UsageError(message, reason="deny_file") from error
        self._publish()

    def refresh(self) -> None:
        """Read again what has changed; what cannot be read any more holds as it was. Blocking."""
        for path in self._paths:
            try:
                self._look(path)
            except (OSError, ValueError, RemoteError) as error:
                if path in self._stamps:
                    del self._stamps[path]
                    log.warning("%s holds as it was read last: %s", path, error)
        self._publish()

    def denies(self, cid: Cid, path: str = "") -> bool:
        """Say whether a file refuses ``/ipfs/{cid}/{path}``."""
        return any(one.denies(cid, path) for one in self.lists)

    def _look(self, path: Path) -> None:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._stamps.get(path) == stamp:
            return
        if found.st_size > FILE_LIMIT_BYTES:
            message = f"it has {found.st_size} bytes, over the limit of {FILE_LIMIT_BYTES}"
            raise RemoteError(message, reason="too_large")
        read = Denylist(path.read_text("utf-8"))
        if read.unknown:
            shown = ", ".join(map(str, read.unknown[:5])) + (", ..." if read.unknown[5:] else "")
            log.warning("%s: %d lines are no rules and do nothing: %s", path, len(read.unknown), shown)
        self._stamps[path] = stamp
        self._read[path] = read

    def _publish(self) -> None:
        lists = tuple(self._read[path] for path in self._paths if path in self._read)
        if lists != self.lists:
            self.lists = lists
            self.version += 1
