"""Pathways: the ways a player without a node may take to a title's files, nearest first.

Pure: the directory, the keyring and the page's own scheme in, pathways out. A page that came over
https may not read plain HTTP, so only ``web`` endpoints are pathways there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b, sha256
from typing import NamedTuple
from urllib.parse import urlsplit

from ...protocol.directory import Endpoint, RelayRecord
from ...protocol.keyring import Keyring
from ...protocol.ports import TierName
from ..ladder.tiers import address
from ..overlay import is_overlay

HERE = "here"
"""The pathway of the site itself: its addresses stay relative, whatever name it was asked by."""
ORIGIN = "origin"
ZONES, RELAYS = 2, 4
"""Pull zones and relays at most: a player needs a few ways, and each is a set of variants."""
TURNS = 1 << 16
_HTTPS_PORT = 443


class Pathway(NamedTuple):
    """One way; ``base`` is ``scheme://host[:port][/path]`` without a slash at its end, empty for the site.

    ``name`` is the PATHWAY-ID: a new address has a new one, because players never read a known one again;
    a pull zone's is its host's, because tokens in its base come and go. ``key`` is a relay's, else empty.
    """

    name: str
    base: str
    tier: TierName
    key: bytes = b""

    @property
    def playable(self) -> bool:
        """Whether relative links below the base work: a token in a query would be lost on the way."""
        return "?" not in self.base


class Site(NamedTuple):
    """Who serves the page: ``key`` of its box, and whether it is the origin itself."""

    key: bytes
    is_origin: bool


def pathways(
    site: Site, title: str, keyring: Keyring | None, records: Sequence[RelayRecord], now_ms: int,
    *, https: bool, turn: int = 0,
) -> list[Pathway]:  # fmt: skip
    """Return the ways to a title: CDN, this relay, other relays, the origin.

    Each title has its own few relays (rendezvous hashing), so that they hold it already; ``turn``, one
    for each viewer, says which of them comes first.
    """
    zones: dict[str, str] = {}  # a host once: two zones of one host fail together
    for base in keyring.cdn if keyring else ():
        if not https or base.startswith("https:"):
            zones.setdefault(place(base), base.rstrip("/"))
    found = [Pathway(_name("cdn", host), base, TierName.CDN) for host, base in zones.items()][:ZONES]
    if not site.is_origin:
        found.append(Pathway(HERE, "", TierName.RELAY, site.key))
    relays = [
        Pathway(_name("relay", base), base, TierName.RELAY, record.relay)
        for record in sorted(records, key=lambda record: _weight(title, record.relay), reverse=True)
        if record.relay != site.key
        and record.expires_ms > now_ms
        and (base := _base(record.endpoints, https=https))
    ][:RELAYS]
    first = turn % len(relays) if relays else 0
    found += relays[first:] + relays[:first]
    if site.is_origin:
        found.append(Pathway(HERE, "", TierName.CDN))
    elif keyring is not None and (base := _base(keyring.endpoints, https=https)):
        found.append(Pathway(ORIGIN, base, TierName.CDN))
    return found


def ranked(ways: Sequence[Pathway], lost: Collection[str]) -> list[Pathway]:
    """Return the ways in order, those whose base is ``lost`` last: only this box may not reach them."""
    return sorted(ways, key=lambda way: way.base in lost)


def place(base: str) -> str:
    """Return ``scheme://host[:port]`` of a base: what a content policy names."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}"


def _base(endpoints: Sequence[Endpoint], *, https: bool) -> str:
    """Return where a browser reaches a box; empty where it cannot."""
    for endpoint in endpoints:
        if endpoint.web:
            where = address(endpoint)
            return f"https://{where.removesuffix(f':{_HTTPS_PORT}')}"
    open_to_all = [endpoint for endpoint in endpoints if not is_overlay(endpoint.host)]
    return "" if https or not open_to_all else f"http://{address(open_to_all[0])}"


def _name(kind: str, base: str) -> str:
    return f"{kind}-{sha256(base.encode()).hexdigest()[:8]}"


def _weight(title: str, key: bytes) -> bytes:
    return blake2b(title.encode() + b"\0" + key, digest_size=8).digest()
