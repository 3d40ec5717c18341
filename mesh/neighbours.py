"""Neighbours: decides from signed presences who is on the link now.

A presence proves only that its key's holder said it; that the key also answers at the address is
proven when it is dialled. So the worst a liar reaches is a dial that fails.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ..protocol.errors import RemoteError
from ..protocol.identity import peer_id
from ..protocol.ports import Source, TierName
from ..protocol.presence import Presence, open_presence

MISSED_INTERVALS = 3
NEIGHBOURS_LIMIT = 256
PER_HOST_LIMIT = 16
REMEMBERED_KEYS = 4_096


class Neighbour(NamedTuple):
    """One box on the link; ``hops`` is how far it is from a relay or the origin, by its own word."""

    key: bytes
    host: str
    port: int
    hops: int
    expires_at: float

    @property
    def uplink(self) -> bool:
        """Whether it reaches a relay or the origin by itself."""
        return self.hops == 0

    @property
    def source(self) -> Source:
        """Where to dial it, as the mesh tier's source."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Source(TierName.MESH, peer_id(self.key), f"{host}:{self.port}", self.key)


class Neighbours:
    """The table: fed with datagrams, emptied by silence.

    ``own`` is this box's presence key, ``net`` the origin it follows; ``on_link`` tells whether an
    address may be dialled; ``rejected`` hears why a presence was refused.
    """

    def __init__(
        self, own: bytes, net: bytes, on_link: Callable[[str], bool], rejected: Callable[[str], None]
    ) -> None:
        self._own = own
        self._net = net
        self._on_link = on_link
        self._rejected = rejected
        self._table: dict[bytes, Neighbour] = {}
        self._newest_ms: OrderedDict[bytes, int] = OrderedDict()

    def receive(self, data: bytes, host: str, now: float) -> bool:
        """Take one datagram from ``host``; True where its sender asks for our presence."""
        try:
            presence = open_presence(data)
        except RemoteError as error:
            self._rejected(error.reason)
            return False
        if presence.key == self._own:
            return False
        reason = self._fault(presence, host)
        if reason:
            self._rejected(reason)
            return False
        newest_ms = self._newest_ms.get(presence.key, -1)
        if presence.at_ms == newest_ms:
            self._prefer_ipv4(presence.key, host)
            return False
        if presence.at_ms < newest_ms:
            self._rejected("replay")
            return False
        self._accept(presence, host, now)
        return presence.ask and not presence.leaving

    def tick(self, now: float) -> list[bytes]:
        """Drop whoever missed three of their intervals; returns the keys dropped."""
        gone = [key for key, neighbour in self._table.items() if neighbour.expires_at <= now]
        for key in gone:
            del self._table[key]
        return gone

    @property
    def wake_at(self) -> float | None:
        """When the next neighbour expires if it stays silent."""
        return min((neighbour.expires_at for neighbour in self._table.values()), default=None)

    def known(self) -> list[Neighbour]:
        """Return everybody on the link, those nearest to an uplink first."""
        return sorted(self._table.values(), key=lambda neighbour: (neighbour.hops, neighbour.key))

    def _fault(self, presence: Presence, host: str) -> str:
        if presence.net != self._net:
            return "foreign_net"
        if not self._on_link(host):
            return "off_link"
        if presence.key in self._table or presence.leaving:
            return ""
        if len(self._table) >= NEIGHBOURS_LIMIT:
            return "full"
        per_host = Counter(neighbour.host for neighbour in self._table.values())
        return "crowded" if per_host[host] >= PER_HOST_LIMIT else ""

    def _accept(self, presence: Presence, host: str, now: float) -> None:
        self._newest_ms[presence.key] = presence.at_ms
        self._newest_ms.move_to_end(presence.key)
        if len(self._newest_ms) > REMEMBERED_KEYS:
            self._newest_ms.popitem(last=False)
        if presence.leaving:
            self._table.pop(presence.key, None)
            return
        expires_at = now + MISSED_INTERVALS * presence.interval_s
        self._table[presence.key] = Neighbour(presence.key, host, presence.port, presence.hops, expires_at)

    def _prefer_ipv4(self, key: bytes, host: str) -> None:
        """Of one presence heard both ways keep the IPv4 address, which needs no scope to dial."""
        known = self._table.get(key)
        if known is not None and ":" in known.host and ":" not in host:
            self._table[key] = known._replace(host=host)
