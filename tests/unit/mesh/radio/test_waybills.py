# pyright: reportPrivateUsage=false
"""What carriers say waits with them is bounded whoever speaks, and gone once it has arrived."""

from __future__ import annotations

from farcast.mesh.radio.waybills import A_CARRIER, ALL, ARRIVED_KEPT, KEPT_MS, Waiting, Waybills
from farcast.protocol.radio import Waybill


def waybill(carrier: int, number: int, pulses: int = 10) -> Waybill:
    """Return what a carrier says."""
    name = carrier.to_bytes(16) + number.to_bytes(16)
    return Waybill(1, carrier.to_bytes(32), number, name, pulses)


def hear(waybills: Waybills, one: Waybill, now_ms: int = 0) -> bool:
    """Hear a waybill; its datagram is its hash here."""
    return waybills.take(one, one.batch, now_ms)


def test_it_is_news_once_and_gone_when_it_arrives() -> None:
    waybills, one = Waybills(), waybill(1, 1)
    assert hear(waybills, one)
    assert not hear(waybills, one)
    assert hear(waybills, waybill(2, 1, 30))
    assert hear(waybills, waybill(1, 2, 5))
    assert waybills.waiting() == [Waiting((2).to_bytes(32), 1, 30), Waiting((1).to_bytes(32), 2, 15)]
    assert waybills.datagrams()[0] == waybill(1, 2).batch, "the newest first"
    waybills.arrive(one.batch)
    assert waybills.waiting()[1] == Waiting((1).to_bytes(32), 1, 5)
    assert not hear(waybills, one), "said again after it came"


def test_nobody_fills_the_memory() -> None:
    waybills = Waybills()
    for number in range(1, 3 * A_CARRIER):
        hear(waybills, waybill(1, number))
    assert waybills.waiting() == [Waiting((1).to_bytes(32), A_CARRIER, 10 * A_CARRIER)]
    for carrier in range(2, ALL + 10):
        hear(waybills, waybill(carrier, 1))
    assert sum(one.batches for one in waybills.waiting()) == ALL
    for number in range(ARRIVED_KEPT + 1):
        waybills.arrive(number.to_bytes(32))
    assert len(waybills._arrived) == ARRIVED_KEPT


def test_what_waits_longer_than_it_is_carried_is_forgotten() -> None:
    waybills = Waybills()
    hear(waybills, waybill(1, 1), 0)
    hear(waybills, waybill(1, 2), 1_000)
    waybills.expire(KEPT_MS + 1)
    assert [one.batches for one in waybills.waiting()] == [1]
