"""The two tiers that need the Internet: CDN pull zones and relays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from ...protocol.cid import Cid
from ...protocol.directory import Endpoint, RelayRecord
from ...protocol.identity import peer_id
from ...protocol.keyring import Keyring
from ...protocol.ports import BlockDialer, Dialer, Reply, Source, TierName
from ..overlay import is_overlay

FETCH_TIMEOUT_S = 30.0


def address(endpoint: Endpoint) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def origin_sources(keyring: Keyring | None, tier: TierName = TierName.RELAY) -> list[Source]:
    """Return the origin's own listeners as sources."""
    if keyring is None:
        return []
    proven = [endpoint for endpoint in keyring.endpoints if not endpoint.web]  # those that show the key
    return [Source(tier, "origin", address(endpoint), keyring.box) for endpoint in proven]


def relay_sources(records: Sequence[RelayRecord], now_ms: int, *, overlay: bool = False) -> list[Source]:
    """Return the relays of a directory whose records still hold, by the endpoint that proves their key.

    With ``overlay``, where this box is in the overlay, by their address there too.
    """
    return [
        Source(TierName.RELAY, peer_id(record.relay), address(endpoint), record.relay)
        for record in records
        if record.expires_ms > now_ms
        for endpoint in _dialled(record.endpoints, overlay=overlay)
    ]


def _dialled(endpoints: Sequence[Endpoint], *, overlay: bool) -> list[Endpoint]:
    """Return the first address that proves the key, and the first in the overlay."""
    proven = [endpoint for endpoint in endpoints if not endpoint.web]
    beyond = [endpoint for endpoint in proven if is_overlay(endpoint.host)]
    return [one for one in proven if one not in beyond][:1] + (beyond[:1] if overlay else [])


class WebTier:
    """Blocks over HTTP from whatever ``sources`` names: CDN addresses, relays, neighbours, an origin."""

    def __init__(
        self,
        name: TierName,
        dialer: BlockDialer,
        sources: Callable[[], Sequence[Source]],
        *,
        metered: bool = False,
        reserve: Callable[[], Sequence[Source]] = tuple,
        own: bytes = b"",
        headers: Mapping[str, str] | None = None,
        spent: Callable[[], bool] = bool,
    ) -> None:
        """Send ``headers`` with every request; ``reserve`` and ``own`` are as in the roster's ``Listing``.

        While ``spent`` says that the link's budget is used up nobody is asked.
        """
        self.name = name
        self.metered = metered
        self.reserve = reserve
        self.own = own
        self._dialer = dialer
        self._sources = sources
        self._headers = headers or {}
        self._spent = spent

    def sources(self) -> Sequence[Source]:
        """Return the sources known now."""
        return () if self._spent() else self._sources()

    async def fetch(
        self, source: Source, cid: Cid, *, title: str = "", arrived: Callable[[int], None] | None = None
    ) -> bytes:
        """Return the block, unverified; raises ``UnreachableError`` or ``RefusedError``."""
        headers = {**self._headers, "farcast-title": title} if title else self._headers
        return await self._dialer.get_block(
            source, cid, headers=headers, timeout_s=FETCH_TIMEOUT_S, arrived=arrived
        )


def pull_zones(keyring: Keyring | None) -> list[Source]:
    """Return the CDN addresses an origin names; a token in one is no part of its name."""
    return [Source(TierName.CDN, urlsplit(base).netloc, base) for base in keyring.cdn] if keyring else []


class Dialers:
    """Two diallers as one: neighbours by the one that may dial private addresses, all else by the other."""

    def __init__(self, wan: Dialer, lan: Dialer) -> None:
        self._wan, self._lan = wan, lan

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one request; raises as ``Dialer.request``."""
        return await self._of(source).request(
            source, method, path, body=body, headers=headers, limit_bytes=limit_bytes, timeout_s=timeout_s
        )

    def _of(self, source: Source) -> Dialer:
        return self._lan if source.tier is TierName.MESH else self._wan


def cdn_tier(
    dialer: BlockDialer,
    keyring: Callable[[], Keyring | None],
    *,
    metered: bool = False,
    spent: Callable[[], bool] = bool,
) -> WebTier:
    """Return the CDN tier: the origin's pull zones, or the origin itself where it names none."""

    def sources() -> Sequence[Source]:
        known = keyring()
        return pull_zones(known) or origin_sources(known, TierName.CDN)

    return WebTier(TierName.CDN, dialer, sources, metered=metered, spent=spent)
