"""The worklist of a purge: which paths each zone still has to let go of, kept until it has.

It is written before the blocks are dropped: afterwards nobody could say any more which they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ...node.home import write_whole
from ...protocol.errors import LocalError

PATHS_LIMIT = 1_000_000


class Worklist:
    """A file for each title and zone in ``folder``; every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, title: str, base: str) -> list[str]:
        """Return what is left of earlier purges of ``title`` at the zone ``base``."""
        try:
            return self._path(title, base).read_text("ascii").splitlines()[:PATHS_LIMIT]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            message = f"{self._path(title, base)} cannot be read ({error}); remove it and purge again"
            raise LocalError(message, reason="bad_worklist") from error

    def add(self, title: str, base: str, paths: Iterable[str]) -> list[str]:
        """Put ``paths`` to what is left, durably; returns all of it."""
        known = dict.fromkeys(self.read(title, base))
        wanted = list(dict.fromkeys([*known, *paths]))[:PATHS_LIMIT]
        if len(wanted) > len(known):
            self.replace(title, base, wanted)
        return wanted

    def replace(self, title: str, base: str, paths: Iterable[str]) -> None:
        """Keep exactly ``paths``; no file where there are none."""
        text = "".join(f"{path}\n" for path in paths)
        path = self._path(title, base)
        if not text:
            path.unlink(missing_ok=True)
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, text.encode("ascii"))

    def _path(self, title: str, base: str) -> Path:
        return self._folder / f"{title}.{sha256(base.encode()).hexdigest()[:16]}"
