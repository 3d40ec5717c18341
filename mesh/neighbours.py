"""Neighbours: decides from signed presences who is on the link now.

A presence proves only that its key's holder said it; that the key also answers at the address is
proven when it is dialled. So the worst a liar reaches is a dial that fails.

Signatures are looked at last, and only so many a second (``scrutiny.py``): a flood of forgeries costs
little time and no memory. While this box plays or moves something it asks each neighbour it has not heard
for a moment, and one that leaves three asks unanswered is gone. Ask and answer carry a mark that only the
two can make: whoever is known already is heard through any flood, its own address and key forged in it
or not. An idle box asks whose presence is overdue.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ..protocol.errors import RemoteError
from ..protocol.identity import Identity, peer_id, verify
from ..protocol.ports import Source, TierName
from ..protocol.presence import Presence, is_marked, read_presence, split_told, tell_presence
from .scrutiny import Scrutiny

MISSED_INTERVALS = 3
NEIGHBOURS_LIMIT = 256
PER_HOST_LIMIT = 16
REMEMBERED_KEYS = 4_096
ACQUAINTED_KEYS = 2 * NEIGHBOURS_LIMIT
TWINS_S = 0.1
"""How far apart one presence may come by IPv4 and IPv6."""
PROBE_S = 0.2
PROBES_UNANSWERED = 3
PROBES_PER_S = 100
OVERDUE_INTERVALS = 1.25
"""Silence after which an idle box asks; its asks make nobody gone, three missed intervals do."""
IDLE_PROBE_S = 2.0


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
    def interval_s(self) -> float:
        """The longest time until its next presence."""
        return (self.expires_at - self.heard_at) / MISSED_INTERVALS

    @property
    def uplink(self) -> bool:
        """Whether it reaches a relay or the origin by itself."""
        return self.hops == 0

    @property
    def source(self) -> Source:
        """Where to dial it, as the mesh tier's source."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Source(TierName.MESH, peer_id(self.key), f"{host}:{self.port}", self.key)


class _Probe(NamedTuple):
    asked: int
    at: float


class Neighbours:
    """The table: fed with datagrams, emptied by silence.

    ``own`` is this box's presence identity, ``net`` the origin it follows; ``on_link`` tells whether an
    address may be dialled; ``rejected`` hears why a presence was refused.
    """

    def __init__(
        self, own: Identity, net: bytes, on_link: Callable[[str], bool], rejected: Callable[[str], None]
    ) -> None:
        self._own = own
        self._net = net
        self._on_link = on_link
        self._rejected = rejected
        self._table: dict[bytes, Neighbour] = {}
        self._newest: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._pairs: OrderedDict[bytes, bytes] = OrderedDict()
        self._scrutiny = Scrutiny()
        self._probes: dict[bytes, _Probe] = {}
        self.forgeries = 0
        """Presences refused so far of which nobody knows who sent them."""

    def receive(
        self, data: bytes, host: str, now: float, via: object = None, *, alone: bool = False
    ) -> bytes | None:
        """Take one datagram from ``host``, sent to this box ``alone`` or to the group.

        Returns the key of a sender that asks for our presence.
        """
        try:
            mark, envelope = split_told(data)
            presence, signed = read_presence(envelope)
        except RemoteError as error:
            self._rejected(error.reason)
            return None
        key = presence.key
        if key == self._own.key:
            return None
        newest_ms, newest = self._newest.get(key, (-1, b""))
        if envelope == newest:  # the very datagram that was proven, by another way
            if self._on_link(host):
                self._prefer_ipv4(key, host, now, via)
            return None
        reason = self._fault(presence, host)
        if not reason and presence.at_ms <= newest_ms:
            reason = "replay"
        if not reason:
            told = is_marked(mark, envelope, self._pairs.get(key, b""))
            here = key in self._table
            if not self._scrutiny.takes(key, host, now, here=here, told=told, alone=alone):
                reason = "flood"
            elif not verify("presence", key, signed.body, signed.sig):
                reason = "bad_signature"
            self.forgeries += bool(reason)
        if reason:
            self._rejected(reason)
            return None
        self._accept(presence, envelope, host, now, via)
        return key if presence.ask and not presence.leaving else None

    def marked(self, envelope: bytes, key: bytes) -> bytes:
        """Return our sealed presence as it is told to the holder of ``key`` alone."""
        return tell_presence(envelope, self._pairs.get(key, b""))

    def due(self, now: float, *, active: bool = True) -> list[Neighbour]:
        """Return whom to ask whether they are still there, and count that as asked.

        An idle box asks whose presence is overdue: it may have been lost among others.
        """
        interval_s = self._interval_s() if active else IDLE_PROBE_S
        asked: list[Neighbour] = []
        for key, neighbour in self._table.items():
            probe = self._probes.get(key, _Probe(0, neighbour.heard_at))
            quiet_s = interval_s if active else OVERDUE_INTERVALS * neighbour.interval_s
            if neighbour.heard_at + quiet_s > now or probe.asked >= PROBES_UNANSWERED:
                continue
            if probe.at + interval_s <= now:
                self._probes[key] = _Probe(probe.asked + active, now)
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
        if len(self._newest) > REMEMBERED_KEYS:  # who is here is remembered whatever others say
            del self._newest[next(old for old in self._newest if old not in self._table)]
        self._probes.pop(presence.key, None)
        if presence.leaving:
            self._drop(presence.key)
        else:
            self._acquaint(presence.key, now)
            expires_at = now + MISSED_INTERVALS * presence.interval_s
            self._table[presence.key] = Neighbour(
                presence.key, host, presence.port, presence.hops, expires_at, now, via
            )

    def _drop(self, key: bytes) -> None:
        self._table.pop(key, None)
        self._probes.pop(key, None)

    def _acquaint(self, key: bytes, now: float) -> None:
        """Know the marks of a neighbour from now on, and for a while after it is gone."""
        if key not in self._pairs:
            self._pairs[key] = self._own.pair(key)
            self._scrutiny.know(key, now)
        self._pairs.move_to_end(key)
        if len(self._pairs) > ACQUAINTED_KEYS:
            old = next(old for old in self._pairs if old not in self._table and old != key)
            del self._pairs[old]
            self._scrutiny.forget(old)

    def _interval_s(self) -> float:
        """Return the time between two asks of one neighbour: longer where there are very many."""
        return max(PROBE_S, len(self._table) / PROBES_PER_S)

    def _silent_at(self, key: bytes, neighbour: Neighbour) -> float:
        """Return when a neighbour that stays silent is gone."""
        probe = self._probes.get(key)
        if probe is None or probe.asked < PROBES_UNANSWERED:
            return neighbour.expires_at
        return min(neighbour.expires_at, probe.at + self._interval_s())

    def _prefer_ipv4(self, key: bytes, host: str, now: float, via: object) -> None:
        """Of one presence heard both ways at once keep the IPv4 address, which needs no scope to dial."""
        known = self._table.get(key)
        if known is None or now - known.heard_at > TWINS_S:
            return  # an echo that somebody sends from an address of their own
        if ":" in known.host and ":" not in host:
            self._table[key] = known._replace(host=host, via=via)
