"""The clerk over a real origin: real pulses, ledger, reports; only the clock is the test's."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from farcast.origin.money.clerk import Clerk
from farcast.origin.money.schedule import DISTRUST_MS, Task
from farcast.protocol.rules import DAY_MS
from farcast.tests.unit.origin.conftest import OpenHouse
from farcast.tests.unit.origin.countinghouse import CountingHouse
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, MONTH

DEC_CLOSE_MS = CLOSE_MS + 31 * DAY_MS


def clerk(house: CountingHouse, payouts: list[str] | None = None) -> tuple[Clerk, CollectorRegistry]:
    registry = CollectorRegistry()
    house.bursary.open()

    def pay(month: str, now_ms: int) -> None:
        assert payouts is not None
        assert now_ms >= CLOSE_MS
        payouts.append(month)

    return Clerk(house.bursary, registry, None if payouts is None else pay), registry


def watched(house: CountingHouse) -> None:
    film = house.film("film", {"ann": 7_000, "bob": 3_000})
    house.watch(1, film, 30)
    house.office.money.book("revenue", 10_000)


def tasks(*kinds: str, month: str = MONTH) -> list[Any]:
    return [Task(kind, month) for kind in kinds]  # type: ignore[arg-type]  # one of three words


def test_a_month_is_settled_reported_and_paid_out_at_its_end_without_anybody(house: CountingHouse) -> None:
    watched(house)
    payouts = list[str]()
    one, registry = clerk(house, payouts)
    assert one.tick(CLOSE_MS - 1, 0) == []
    assert one.tick(CLOSE_MS, 1) == tasks("settle", "report", "payout")
    assert one.tick(CLOSE_MS + 60_000, 60_001) == []
    assert payouts == [MONTH]
    assert (house.home / "reports" / MONTH / "report.json").is_file()
    assert house.office.treasury.ledger.balances("payable:") == {"payable:ann": -6_650, "payable:bob": -2_850}
    labels = {"kind": "settle", "result": "done"}
    assert registry.get_sample_value("farcast_origin_settlement_tasks_total", labels) == 1


def test_a_clock_set_back_and_a_restart_do_nothing_twice(open_house: OpenHouse) -> None:
    watched(open_house())
    clerk(open_house())[0].tick(CLOSE_MS, 0)
    house = open_house()
    size = house.office.treasury.ledger.head()[0]
    for now_ms in (CLOSE_MS - 40 * DAY_MS, CLOSE_MS, CLOSE_MS + 1):
        assert clerk(house)[0].tick(now_ms, 0) == []
    assert house.office.treasury.ledger.head()[0] == size


def test_months_missed_while_it_was_off_are_made_up_at_start_in_order(house: CountingHouse) -> None:
    watched(house)
    film = house.film("film", {"ann": 7_000, "bob": 3_000})
    house.watch(2, film, 10, day=FIRST_DAY + 40)
    house.now_ms = DEC_CLOSE_MS - DAY_MS
    house.office.money.book("revenue", 500, month="2026-12")
    house.now_ms = DEC_CLOSE_MS + 20 * DAY_MS
    one, _ = clerk(house)
    assert one.tick(house.now_ms, 0) == [
        *tasks("settle", "report", "payout"),
        *tasks("settle", "report", "payout", month="2026-12"),
    ]
    assert [item.month for item in house.office.treasury.ledger.settlements()] == [MONTH, "2026-12"]


def test_without_revenue_it_says_what_to_do_and_goes_on_as_soon_as_it_is_booked(house: CountingHouse) -> None:
    film = house.film("film", {"ann": 10_000})
    house.watch(1, film, 30)
    one, registry = clerk(house)
    assert one.tick(CLOSE_MS, 0) == []
    assert "no revenue is booked for 2026-11; book it with" in one.trouble
    assert registry.get_sample_value("farcast_origin_settlement_overdue") == 1
    house.bursary.clerk = one
    assert one.trouble in house.office.status()["warnings"]
    house.now_ms = CLOSE_MS + 1
    house.office.money.book("revenue", 0, month=MONTH)
    assert one.tick(CLOSE_MS + 2, 2) == tasks("settle", "report", "payout")
    assert (one.trouble, registry.get_sample_value("farcast_origin_settlement_overdue")) == ("", 0)


def test_a_payout_that_fails_delays_no_settlement(house: CountingHouse) -> None:
    watched(house)
    house.bursary.open()

    def broken(month: str, now_ms: int) -> None:
        raise OSError(f"no disk for {month} at {now_ms}")

    one = Clerk(house.bursary, CollectorRegistry(), broken)
    assert one.tick(CLOSE_MS, 0) == tasks("settle", "report")
    assert "no disk for 2026-11" in one.trouble
    house.now_ms = DEC_CLOSE_MS - DAY_MS
    house.office.money.book("revenue", 7)
    assert tasks("settle", month="2026-12")[0] in one.tick(DEC_CLOSE_MS, 31 * DAY_MS)


def test_a_clock_that_jumps_ahead_settles_nothing_for_an_hour(house: CountingHouse) -> None:
    watched(house)
    one, _ = clerk(house)
    one.tick(FIRST_DAY * DAY_MS, 0)
    assert one.tick(CLOSE_MS, 60_000) == []
    assert "clock jumped ahead" in one.trouble
    assert one.tick(CLOSE_MS + DISTRUST_MS, 60_000 + DISTRUST_MS) == tasks("settle", "report", "payout")


def test_pulses_of_the_late_window_are_marked_lines_of_the_next_month_and_later_ones_are_not_taken(
    house: CountingHouse,
) -> None:
    film = house.film("film", {"ann": 10_000})
    house.watch(1, film, 30)
    house.office.money.book("revenue", 10_000)
    one, _ = clerk(house)
    one.tick(CLOSE_MS, 0)
    day = FIRST_DAY + 29  # the month's last
    house.watch(2, film, 20, day=day, late_ms=10 * DAY_MS)
    house.watch(3, film, 20, day=day, late_ms=12 * DAY_MS)
    house.now_ms = DEC_CLOSE_MS - DAY_MS
    house.office.money.book("revenue", 10_000)
    assert tasks("settle", month="2026-12")[0] in one.tick(DEC_CLOSE_MS, 31 * DAY_MS)
    statement = house.office.treasury.ledger.settlements()[-1].statement
    look = house.office.treasury.closing.look("2026-12", DEC_CLOSE_MS)
    assert [(line.month, line.payee) for line in look.outcome.lines] == [(MONTH, "ann")]
    assert (statement.viewed_ms, statement.accounts) == (20 * 60_000, 1)
    assert house.office.treasury.intake.counts().rejected == {"late": 21}
