"""Scrutiny: which presences are worth the time that checking a signature takes.

Anybody on a link can write any key and any sender's address into a datagram, ten thousand times a
second. So there are lanes, each with a rate of its own, and what crowds one leaves the others free:

* words said to this box alone under a key that only it and the speaker can make: nobody forges them;
* the keys of neighbours, who need nothing of this lane as long as they answer when asked;
* strangers, by the address they come from;
* strangers again, by lot, where that address or all of them together have used up their share: whoever
  forges a newcomer's address hides it for as long as it takes to say itself a few dozen times, no longer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

TOLD_PER_S, TOLD_BURST = 20.0, 40.0
"""Signatures checked of one neighbour's words to this box alone."""
KEY_PER_S, KEY_BURST = 10.0, 20.0
"""Of what anybody says under one neighbour's key."""
KEYS_PER_S, KEYS_BURST = 200.0, 400.0
"""Of what anybody says under any neighbour's key."""
HOSTS_LIMIT = 512


class Share(NamedTuple):
    """How many signatures of strangers are checked a second, and at once after a pause."""

    host: tuple[float, float] = (40.0, 80.0)
    """Of one address."""
    hosts: tuple[float, float] = (400.0, 800.0)
    """Of all addresses."""
    lot: tuple[float, float] = (400.0, 40.0)
    """Of those refused for either."""


GROUP, ALONE = Share(), Share(hosts=(200.0, 400.0), lot=(200.0, 20.0))
"""For what the group hears, and for what is sent to this box alone: crowding one leaves the other free."""


class _Bucket:
    """Lets so many through a second, and a burst after a pause."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: tuple[float, float], now: float) -> None:
        self._rate, self._burst = rate
        self._left, self._at = self._burst, now

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Strangers:
    """The lanes of those whom nobody knows, for one way in."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._hosts: OrderedDict[str, _Bucket] = OrderedDict()
        self._all, self._lot = _Bucket(share.hosts, 0.0), _Bucket(share.lot, 0.0)

    def take(self, host: str, now: float) -> bool:
        bucket = self._hosts.get(host)
        if bucket is None:
            bucket = self._hosts[host] = _Bucket(self._share.host, now)
            if len(self._hosts) > HOSTS_LIMIT:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(host)
        return (bucket.take(now) and self._all.take(now)) or self._lot.take(now)

    def __len__(self) -> int:
        return len(self._hosts)


class _Known(NamedTuple):
    told: _Bucket
    said: _Bucket


class Scrutiny:
    """Says of each presence whether its signature is looked at now; remembers a bounded number of hosts."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}
        self._keys = _Bucket((KEYS_PER_S, KEYS_BURST), 0.0)
        self._group, self._alone = _Strangers(GROUP), _Strangers(ALONE)

    @property
    def remembered(self) -> int:
        """How many hosts and keys are remembered."""
        return len(self._known) + len(self._group) + len(self._alone)

    def know(self, key: bytes, now: float) -> None:
        """Give a neighbour's key lanes of its own."""
        if key not in self._known:
            self._known[key] = _Known(
                _Bucket((TOLD_PER_S, TOLD_BURST), now), _Bucket((KEY_PER_S, KEY_BURST), now)
            )

    def forget(self, key: bytes) -> None:
        """Count a key among the strangers again."""
        self._known.pop(key, None)

    def takes(self, key: bytes, host: str, now: float, *, here: bool, told: bool, alone: bool) -> bool:
        """Say whether there is time for the signature of a presence of ``key`` that came from ``host``.

        ``here``: it is a neighbour now; ``told``: it carries the mark of who knows this box; ``alone``: it
        was sent to this box, not to the group.
        """
        known = self._known.get(key)
        if known is not None and told:
            return known.told.take(now)
        if known is not None and here:
            return known.said.take(now) and self._keys.take(now)
        return (self._alone if alone else self._group).take(host, now)
