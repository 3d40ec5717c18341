"""The edges: every pull zone of an origin that ``[cdn] zones`` says more about than its address.

Which zones there are is what the origin announces; this adds how they purge, what tags them, and the
tokens that let boxes in. The keys never leave this process but for the CDN they belong to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...node.http.dial import HttpDialer
from ...protocol.errors import LocalError, UsageError
from .adapter import Adapter, Generic
from .bunny import Bunny
from .cloudflare import Cloudflare
from .secret import Secret, read_secret
from .sweep import Progress, Sweep, Swept
from .worklist import Worklist
from .zone import Zone, bare, parse_zone

FOLDER = "purges"
KINDS: Mapping[str, Callable[[Zone], Adapter]] = {
    "generic": Generic,
    "bunny": Bunny,
    "cloudflare": Cloudflare,
}

log = logging.getLogger(__name__)


class Edges:
    """The zones of ``lines``, as ``[cdn] zones`` has them; keys are read anew whenever one is needed."""

    def __init__(
        self, lines: Sequence[str], folder: Path, environ: Mapping[str, str], registry: CollectorRegistry
    ) -> None:
        """Keep unfinished purges in ``folder``.

        Raises:
            UsageError: for a line that is no zone.

        """
        zones = [parse_zone(line) for line in lines]
        self._adapters: dict[str, Adapter] = {zone.base: KINDS[zone.kind](zone) for zone in zones}
        if len(self._adapters) < len(zones):
            raise UsageError("[cdn] zones names one base URL twice", reason="settings")
        self._environ = environ
        self._worklist = Worklist(folder)
        self._unfinished = dict.fromkeys(self._adapters, 0)
        self._purges = Counter(
            "farcast_origin_cdn_purges",
            "Purges at a pull zone: done, or why not.",
            ["kind", "result"],
            registry=registry,
        )
        self._left = Gauge(
            "farcast_origin_cdn_purge_left_paths",
            "Paths that pull zones have still to let go of.",
            ["kind"],
            registry=registry,
        )
        self._token_faults = Counter(
            "farcast_origin_cdn_token_failures",
            "Tokens that could not be signed, by reason; the old ones are told on.",
            ["kind", "reason"],
            registry=registry,
        )
        for zone in zones:
            if zone.purges:
                self._purges.labels(zone.kind, "done")
                self._left.labels(zone.kind)

    @property
    def zones(self) -> list[Zone]:
        """The zones of the settings, in their order."""
        return [adapter.zone for adapter in self._adapters.values()]

    @property
    def tag_headers(self) -> tuple[str, ...]:
        """The response headers in which these CDNs take tags."""
        headers = {adapter.tag_header for adapter in self._adapters.values() if adapter.zone.purges}
        return tuple(sorted(headers - {""}))

    def check(self) -> None:
        """Read every key once, so that a wrong one is found when the origin starts; raises ``UsageError``."""
        for zone in self.zones:
            for where in filter(None, (zone.key, zone.token)):
                read_secret(where, self._environ)

    def purges(self, base: str) -> bool:
        """Say whether the zone at ``base`` can be told to let go of something."""
        adapter = self._adapters.get(bare(base))
        return adapter is not None and adapter.zone.purges

    def strays(self, announced: Iterable[str]) -> list[str]:
        """Return the zones of the settings that no box is told of."""
        known = {bare(base) for base in announced}
        return [base for base in self._adapters if base not in known]

    def signed(self, announced: Iterable[str], now_s: int) -> list[str]:
        """Return the announced bases, each with the token of this half of its life.

        A token is made for a whole half of its life at a time, so that the same second, or a restart, makes
        the same again. A zone whose key cannot be read keeps what it has.
        """
        return [self._sign(base, now_s) for base in announced]

    def remember(self, title: str, announced: Iterable[str], paths: Sequence[str]) -> None:
        """Note durably what the zones must let go of, before the blocks that tell are dropped. Blocking."""
        for base in map(bare, announced):
            if self.purges(base):
                self._worklist.add(title, base, paths)

    async def purge(
        self, title: str, base: str, dialer: HttpDialer, *, end: float, progress: Progress
    ) -> Swept:
        """Make the zone at ``base`` let go of what is on its worklist and of all that is tagged ``title``.

        ``end`` is on the event loop's clock. What fails stays on the list for the next time. Never raises
        what Farcast raises.
        """
        base = bare(base)
        adapter = self._adapters[base]
        try:
            paths = await asyncio.to_thread(self._worklist.read, title, base)
            key = read_secret(adapter.zone.key, self._environ) if adapter.zone.key else None
        except LocalError as error:
            swept = Swept(str(error), error.reason, ())
        else:
            swept = await Sweep(adapter, key, dialer, end=end).run(paths, tag_of(title), progress)
            left = swept.left if swept.trouble else ()
            await asyncio.to_thread(self._worklist.replace, title, base, left)
            self._unfinished[base] = len(left)
            self._count_left(adapter.zone.kind)
        self._purges.labels(adapter.zone.kind, swept.reason or "done").inc()
        if swept.trouble:
            log.warning("%s was not purged at %s: %s", title, adapter.zone.name, swept.trouble)
        return swept

    def _count_left(self, kind: str) -> None:
        left = [self._unfinished[zone.base] for zone in self.zones if zone.kind == kind]
        self._left.labels(kind).set(sum(left))

    def _sign(self, base: str, now_s: int) -> str:
        adapter = self._adapters.get(bare(base))
        if adapter is None or not adapter.zone.token:  # a token that stands there was ours once
            return base if base.rstrip("/") == bare(base) else bare(base)
        half_s = adapter.zone.token_s // 2
        try:
            key: Secret = read_secret(adapter.zone.token, self._environ)
        except UsageError as error:
            self._token_faults.labels(adapter.zone.kind, error.reason).inc()
            log.warning("no new token for %s: %s", adapter.zone.name, error)
            return base
        return adapter.signed(key.reveal(), now_s // half_s * half_s)


def tag_of(title: str) -> str:
    """Return the tag under which CDNs know a title."""
    return f"farcast-{title}"
