"""Neighbours: decides from signed presences who is on the link now.

A presence proves only that its key's holder said it; that the key also answers at the address is
proven when it is dialled. So the worst a liar reaches is a dial that fails.

Signatures are looked at last, and only so many a second of one host: a flood of forgeries costs little
time and no memory. While this box plays or moves something it asks each neighbour it has not heard for
a moment, and one that leaves three asks unanswered is gone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ..protocol.errors import RemoteError
from ..protocol.identity import peer_id, verify
from ..protocol.ports import Source, TierName
from ..protocol.presence import Presence, read_presence

MISSED_INTERVALS = 3
NEIGHBOURS_LIMIT = 256
PER_HOST_LIMIT = 16
REMEMBERED_KEYS = 4_096
PROBE_S = 0.2
PROBES_UNANSWERED = 3
PROBES_PER_S = 100
CHECKS_PER_S, CHECKS_BURST = 40.0, 80.0
"""Signatures checked of one host."""
STRANGERS_PER_S, STRANGERS_BURST = 400.0, 800.0
"""Signatures checked of all hosts together that no neighbour has."""
HOSTS_LIMIT = 512


class Neighbour(NamedTuple):
    """One box on the link; ``hops`` is how far it is from a relay or the origin, by its own word.

    ``via`` is whatever the shell that heard it will need to speak to it alone.
    """

    key: bytes
    host: str
    port: int
    hops: int
    expires_at: float
    heard_at: float = 0.0
    via: object = None

    @property
    def uplink(self) -> bool:
        """Whether it reaches a relay or the origin by itself."""
        return self.hops == 0

    @property
    def source(self) -> Source:
        """Where to dial it, as the mesh tier's source."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Source(TierName.MESH, peer_id(self.key), f"{host}:{self.port}", self.key)


class _Bucket:
    """Lets so many through a second, and a burst after a pause."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate_s: float, burst: float, now: float) -> None:
        self._rate, self._left, self._at = rate_s, burst, now

    def take(self, burst: float, now: float) -> bool:
        self._left = min(burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Probe(NamedTuple):
    asked: int
    at: float


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
        self._newest: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._strangers = _Bucket(STRANGERS_PER_S, STRANGERS_BURST, 0.0)
        self._probes: dict[bytes, _Probe] = {}

    def receive(self, data: bytes, host: str, now: float, via: object = None) -> bool:
        """Take one datagram from ``host``; True where its sender asks for our presence."""
        try:
            presence, signed = read_presence(data)
        except RemoteError as error:
            self._rejected(error.reason)
            return False
        if presence.key == self._own:
            return False
        newest_ms, newest = self._newest.get(presence.key, (-1, b""))
        if data == newest:  # the very datagram that was proven, by another way
            if self._on_link(host):
                self._prefer_ipv4(presence.key, host, via)
            return False
        reason = self._fault(presence, host)
        if not reason and presence.at_ms <= newest_ms:
            reason = "replay"
        if not reason and not self._may_check(host, now):
            reason = "flood"
        if not reason and not verify("presence", presence.key, signed.body, signed.sig):
            reason = "bad_signature"
        if reason:
            self._rejected(reason)
            return False
        self._accept(presence, data, host, now, via)
        return presence.ask and not presence.leaving

    def due(self, now: float) -> list[Neighbour]:
        """Return whom to ask whether they are still there, and count that as asked."""
        interval_s = self._interval_s()
        asked: list[Neighbour] = []
        for key, neighbour in self._table.items():
            probe = self._probes.get(key, _Probe(0, neighbour.heard_at))
            if max(probe.at, neighbour.heard_at) + interval_s <= now and probe.asked < PROBES_UNANSWERED:
                self._probes[key] = _Probe(probe.asked + 1, now)
                asked.append(neighbour)
        return asked

    def tick(self, now: float) -> list[bytes]:
        """Drop whoever missed three of their intervals or our asks; returns the keys dropped."""
        gone = [key for key, neighbour in self._table.items() if self._silent_at(key, neighbour) <= now]
        for key in gone:
            self._drop(key)
        return gone

    @property
    def wake_at(self) -> float | None:
        """When the next neighbour expires if it stays silent."""
        return min((self._silent_at(key, one) for key, one in self._table.items()), default=None)

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

    def _accept(self, presence: Presence, data: bytes, host: str, now: float, via: object) -> None:
        self._newest[presence.key] = (presence.at_ms, data)
        self._newest.move_to_end(presence.key)
        if len(self._newest) > REMEMBERED_KEYS:
            self._newest.popitem(last=False)
        self._drop(presence.key)
        if not presence.leaving:
            expires_at = now + MISSED_INTERVALS * presence.interval_s
            self._table[presence.key] = Neighbour(
                presence.key, host, presence.port, presence.hops, expires_at, now, via
            )

    def _drop(self, key: bytes) -> None:
        self._table.pop(key, None)
        self._probes.pop(key, None)

    def _interval_s(self) -> float:
        """Return the time between two asks of one neighbour: longer where there are very many."""
        return max(PROBE_S, len(self._table) / PROBES_PER_S)

    def _silent_at(self, key: bytes, neighbour: Neighbour) -> float:
        """Return when a neighbour that stays silent is gone."""
        probe = self._probes.get(key)
        if probe is None or probe.asked < PROBES_UNANSWERED:
            return neighbour.expires_at
        return min(neighbour.expires_at, probe.at + self._interval_s())

    def _may_check(self, host: str, now: float) -> bool:
        """Whether there is time for another signature from ``host``."""
        bucket = self._buckets.get(host)
        if bucket is None:
            bucket = self._buckets[host] = _Bucket(CHECKS_PER_S, CHECKS_BURST, now)
            if len(self._buckets) > HOSTS_LIMIT:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(host)
        if not bucket.take(CHECKS_BURST, now):
            return False
        known = any(neighbour.host == host for neighbour in self._table.values())
        return known or self._strangers.take(STRANGERS_BURST, now)

    def _prefer_ipv4(self, key: bytes, host: str, via: object) -> None:
        """Of one presence heard both ways keep the IPv4 address, which needs no scope to dial."""
        known = self._table.get(key)
        if known is not None and ":" in known.host and ":" not in host:
            self._table[key] = known._replace(host=host, via=via)
