"""Dual stack: in which order the addresses of a name are tried, by what connected before.

A pure core. RFC 8305 gives each address 250 ms before the next is tried as well; who remembers which one
answered pays that once for a network and not for every connection. Where a whole address family loses
to the other, names that are new are tried by the other first: a broken IPv6 is a network's trouble more
often than a name's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

ATTEMPT_S = 0.25
"""What one address gets before the next is tried as well (RFC 8305 section 5, Connection Attempt Delay)."""
NAMES, NETWORKS = 1_024, 64

T = TypeVar("T")


class DualStack:
    """What connected, by network and name; the oldest is forgotten first."""

    def __init__(self) -> None:
        """Nothing has connected yet."""
        self._winners: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._families: OrderedDict[str, int] = OrderedDict()

    def order(self, network: str, name: str, found: Sequence[tuple[int, str, T]]) -> list[tuple[int, str, T]]:
        """Return (family, address, anything) in the order to try them in.

        First what connected last time, then the family that did on this network, then as they were
        ``found``; families alternate (RFC 8305 section 4).
        """
        winner = self._winners.get((network, name), "")
        family = self._families.get(network, found[0][0] if found else 0)
        ranked = sorted(found, key=lambda one: (one[1] != winner, one[0] != family))
        first = [one for one in ranked if one[0] == ranked[0][0]]
        second = [one for one in ranked if one[0] != ranked[0][0]]
        mixed: list[tuple[int, str, T]] = []
        for place in range(max(len(first), len(second))):
            mixed += first[place : place + 1] + second[place : place + 1]
        return mixed

    def connected(self, network: str, name: str, family: int, address: str, *, raced: bool) -> None:
        """Note which address answered; ``raced``: the name had addresses of another family too."""
        _remember(self._winners, (network, name), address, NAMES)
        if raced:
            _remember(self._families, network, family, NETWORKS)


K = TypeVar("K")
V = TypeVar("V")


def _remember(memory: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > limit:
        memory.popitem(last=False)
