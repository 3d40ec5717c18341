"""Waybills heard: which batches wait with whom, as carriers say by radio; nothing is counted by it.

A pure core. Bounded whoever speaks: so many of a carrier, so many in all, for as long as a batch is carried.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ...protocol.radio import Waybill

KEPT_MS = 9 * 86_400_000
A_CARRIER, ALL = 32, 1_024
ARRIVED_KEPT = 4_096


class Waiting(NamedTuple):
    """What waits with one carrier."""

    carrier: bytes
    batches: int
    pulses: int


class Waybills:
    """Those of batches that have not arrived, by the batch's hash, the one heard last at the end."""

    def __init__(self) -> None:
        self._heard: OrderedDict[bytes, tuple[Waybill, bytes, int]] = OrderedDict()
        self._arrived: OrderedDict[bytes, None] = OrderedDict()

    def take(self, waybill: Waybill, datagram: bytes, now_ms: int) -> bool:
        """Note a verified waybill; True where it is news."""
        if waybill.batch in self._arrived or waybill.batch in self._heard:
            return False
        self._heard[waybill.batch] = waybill, datagram, now_ms
        own = [name for name, (one, _, _) in self._heard.items() if one.carrier == waybill.carrier]
        for name in own[:-A_CARRIER]:
            del self._heard[name]
        while len(self._heard) > ALL:
            self._heard.popitem(last=False)
        return waybill.batch in self._heard

    def arrive(self, batch: bytes) -> None:
        """Note that a batch has arrived, or is acked."""
        self._heard.pop(batch, None)
        self._arrived[batch] = None
        while len(self._arrived) > ARRIVED_KEPT:
            self._arrived.popitem(last=False)

    def expire(self, now_ms: int) -> None:
        """Forget what waits for longer than anybody carries it."""
        for name, (_, _, at_ms) in list(self._heard.items()):
            if now_ms - at_ms > KEPT_MS:
                del self._heard[name]

    def datagrams(self) -> list[bytes]:
        """Return them as they were heard, to be told on, the newest first."""
        return [datagram for _, datagram, _ in reversed([*self._heard.values()])]

    def waiting(self) -> list[Waiting]:
        """Return what waits with whom, most pulses first."""
        found: dict[bytes, Waiting] = {}
        for waybill, _, _ in list(self._heard.values()):
            _, batches, pulses = found.get(waybill.carrier, Waiting(waybill.carrier, 0, 0))
            found[waybill.carrier] = Waiting(waybill.carrier, batches + 1, pulses + waybill.pulses)
        return sorted(found.values(), key=lambda one: (-one.pulses, one.carrier))
