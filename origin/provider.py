"""Who has what, as IPFS clients ask it: provider records of delegated routing, and filters on them.

Delegated Routing V1 (IPIP-0337, peer schema of IPIP-0417, filters of IPIP-0484). A record names one
box and where its trustless gateway answers.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple

from ..protocol.directory import Endpoint

GATEWAY = "transport-ipfs-gateway-http"
FILTER_LIMIT_CHARS = 512

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class Provider(NamedTuple):
    """One box that serves blocks over HTTP: its peer id, its multiaddrs, and until when that is known."""

    peer_id: str
    addrs: tuple[str, ...]
    expires_ms: int

    def record(self) -> dict[str, object]:
        """Return it in the peer schema."""
        return {"Schema": "peer", "ID": self.peer_id, "Addrs": list(self.addrs), "Protocols": [GATEWAY]}


class Ring:
    """Providers in a circle by the hash of their ids.

    Each CID has its own place to begin at, so that where there are more boxes than an answer may
    name, every box is named for its share of the titles.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        placed = sorted((sha256(one.peer_id.encode()).digest(), one) for one in providers)
        self._places = [place for place, _ in placed]
        self._providers = [one for _, one in placed]

    def around(self, digest: bytes) -> Iterator[Provider]:
        """Yield every provider once, the next one behind ``digest`` first."""
        first = bisect_left(self._places, sha256(digest).digest())
        yield from self._providers[first:]
        yield from self._providers[:first]


class Wanted:
    """What a client asks for by ``filter-addrs`` and ``filter-protocols`` (IPIP-0484)."""

    def __init__(self, query: Mapping[str, str]) -> None:
        """Read the filters of a request's ``query``; names are compared in lower case."""
        addrs = _words(query.get("filter-addrs", ""))
        self._protocols = _words(query.get("filter-protocols", ""))
        self._refused = frozenset(word[1:] for word in addrs if word.startswith("!"))
        self._taken = frozenset(word for word in addrs if not word.startswith("!"))

    def of(self, provider: Provider) -> Provider | None:
        """Return the provider with the addresses that are wanted, None where nothing is left."""
        if self._protocols and GATEWAY not in self._protocols:
            return None
        addrs = tuple(addr for addr in provider.addrs if self._wants(_names(addr)))
        return provider._replace(addrs=addrs) if addrs else None

    def _wants(self, names: frozenset[str]) -> bool:
        return not names & self._refused and (not self._taken or bool(names & self._taken))


def multiaddr(endpoint: Endpoint) -> str | None:
    """Return where an IPFS client asks ``endpoint``; None where none could.

    A box's plain port is good by its address alone: a name in clear text is refused by Kubo.
    """
    try:
        address = ip_address(endpoint.host)
    except ValueError:
        if not endpoint.web or not _NAME.fullmatch(endpoint.host):
            return None
        return f"/dns4/{endpoint.host.lower()}/tcp/{endpoint.port}/tls/http"
    if getattr(address, "scope_id", None):
        return None  # a link-local address means something on one link only
    secure = "/tls" if endpoint.web else ""
    return f"/ip{address.version}/{address}/tcp/{endpoint.port}{secure}/http"


def provider(peer_id: str, endpoints: Sequence[Endpoint], expires_ms: int) -> Provider | None:
    """Return the record of a box that listens at ``endpoints``; None where no IPFS client could ask it."""
    addrs = tuple(addr for endpoint in endpoints if (addr := multiaddr(endpoint)) is not None)
    return Provider(peer_id, addrs, expires_ms) if addrs else None


def _names(addr: str) -> frozenset[str]:
    """Return the protocol names in a multiaddr of ours; ``/tls/http`` is also called ``https``."""
    parts = addr.split("/")[1:]
    names = {parts[0], parts[2], *parts[4:]}
    return frozenset(names | ({"https"} if "tls" in names else set()))


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text[:FILTER_LIMIT_CHARS].lower().split(",") if word.strip())
