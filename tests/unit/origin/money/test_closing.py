from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from farcast.origin.money.closing import close_ms, parse_as_of
from farcast.origin.money.ledger import Ledger
from farcast.origin.pulses.intake import Intake
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CARRIER,
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    MONTH,
    RELAY,
    Shelf,
    Viewer,
    batch,
    closing,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 7_000, "bob": 3_000})
OTHER = SHELF.add("other", {"cat": 10_000})
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
DEC_CLOSE_MS = CLOSE_MS + 31 * DAY_MS


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.book_revenue(100_000, FIRST_MS, b"revenue")
    ledger.book_cost(10_000, FIRST_MS, b"cost")
    return ledger


def evening(intake: Intake, viewers: list[Viewer]) -> None:
    for viewer in viewers:
        viewer.watch(FILM, 30)
        viewer.watch(OTHER, 10, from_ms=10 * 3_600_000)
        intake.post(post([viewer], viewer.pulses), NOON)


def test_a_closed_month_is_settled_posted_and_the_same_again(tmp_path: Path, ledger: Ledger) -> None:
    evening(open_intake(tmp_path), [Viewer(1), Viewer(2)])
    books = closing(tmp_path, ledger, SHELF)
    dry = books.settle(MONTH, now_ms=CLOSE_MS, dry_run=True)
    assert not dry.posted
    assert ledger.settlements() == []
    first = books.settle(MONTH, now_ms=CLOSE_MS)
    again = books.settle(MONTH, now_ms=CLOSE_MS + 10**9)
    assert (first.posted, again.posted) == (True, False)
    assert first.outcome == again.outcome == dry.outcome
    assert first.json()["payouts"] == [
        {"payee": "ann", "cents": 44_625},
        {"payee": "bob", "cents": 19_125},
        {"payee": "cat", "cents": 21_250},
    ]
    assert ledger.balances()["payable:ann"] == -44_625


def test_an_open_month_is_refused_without_as_of(tmp_path: Path, ledger: Ledger) -> None:
    books = closing(tmp_path, ledger, SHELF)
    with pytest.raises(UsageError, match="2026-11 is still open until 00:05 UTC"):
        books.settle(MONTH, now_ms=CLOSE_MS - 1)
    with pytest.raises(UsageError, match="future"):
        books.settle(MONTH, now_ms=NOON, as_of_ms=NOON + 1)
    with pytest.raises(UsageError, match="before 2026-11 begins"):
        books.settle(MONTH, now_ms=NOON, as_of_ms=FIRST_MS - 1)
    with pytest.raises(UsageError, match="is no month"):
        books.settle("2026-13", now_ms=NOON)
    assert ledger.settlements() == []


def test_order_repetition_and_way_of_the_pulses_change_no_byte(tmp_path: Path) -> None:
    viewers = [Viewer(number) for number in range(4)]
    for viewer in viewers:
        viewer.watch(FILM, 20)
        viewer.beat(OTHER, 5 * 3_600_000, 0)
    pulses = [(viewer, pulse) for viewer in viewers for pulse in viewer.pulses]
    seen: set[tuple[object, ...]] = set()
    for seed in range(4):
        random = Random(seed)
        folder = tmp_path / str(seed)
        intake = open_intake(folder)
        mixed = pulses + random.sample(pulses, 30)
        random.shuffle(mixed)
        while mixed:
            part, mixed = mixed[:17], mixed[17:]
            group = [viewer for viewer, _ in part]
            data = [pulse for _, pulse in part]
            if random.random() < 0.5:
                intake.post(post(group, data), NOON)
            else:
                intake.batch(batch(CARRIER, group, data, [NOON] * len(data), random.randrange(1, 99)), NOON)
        ledger = Ledger(folder / "ledger.db")
        ledger.book_revenue(99_999, FIRST_MS, b"1")
        found = closing(folder, ledger, SHELF).settle(MONTH, now_ms=CLOSE_MS).outcome
        s = found.statement
        seen.add((found.lines, s.viewed_ms, s.pulses, s.tickets_hash, s.paid_cents, s.carried_cents))
        ledger.close()
        intake.close()
    assert len(seen) == 1


def test_a_provisional_close_carries_later_pulses_into_the_next_month(tmp_path: Path, ledger: Ledger) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 30)
    intake.post(post([viewer], pulses[:11]), NOON)
    books = closing(tmp_path, ledger, SHELF)
    first = books.settle(MONTH, now_ms=NOON + 5, as_of_ms=NOON + 5)
    assert first.outcome.statement.viewed_ms == 10 * 60_000
    assert books.settle(MONTH, now_ms=NOON + 99, as_of_ms=NOON + 9).posted is False
    intake.post(post([viewer], pulses[11:]), NOON + DAY_MS)
    with pytest.raises(UsageError, match="settled already with another result"):
        books.settle(MONTH, now_ms=CLOSE_MS)
    december = Viewer(2, FIRST_DAY + 31)
    intake.post(post([december], december.watch(OTHER, 20)), CLOSE_MS + 2 * DAY_MS)
    ledger.book_revenue(1_000, CLOSE_MS + DAY_MS, b"december")
    second = books.settle("2026-12", now_ms=DEC_CLOSE_MS).outcome
    assert [(x.payee, x.month, x.weight) for x in sorted(second.lines, key=lambda x: x.payee)] == [
        ("ann", "2026-11", 20 * 60_000 * 7_000),
        ("bob", "2026-11", 20 * 60_000 * 3_000),
        ("cat", "2026-12", 20 * 60_000 * 10_000),
    ]
    assert second.statement.previous == first.outcome.digest


def test_nine_days_late_is_carried_in_once_and_never_again(tmp_path: Path, ledger: Ledger) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1, FIRST_DAY + 29)
    pulses = viewer.watch(FILM, 30)
    intake.post(post([viewer], pulses[:16]), CLOSE_MS - 1)
    books = closing(tmp_path, ledger, SHELF)
    assert books.settle(MONTH, now_ms=CLOSE_MS).outcome.statement.viewed_ms == 15 * 60_000
    intake.post(post([viewer], pulses), CLOSE_MS + 9 * DAY_MS)
    ledger.book_revenue(1_000, CLOSE_MS + DAY_MS, b"december")
    assert books.settle("2026-12", now_ms=DEC_CLOSE_MS).outcome.statement.viewed_ms == 15 * 60_000
    ledger.book_revenue(1_000, DEC_CLOSE_MS + DAY_MS, b"january")
    january = books.settle("2027-01", now_ms=DEC_CLOSE_MS + 31 * DAY_MS).outcome.statement
    assert (january.viewed_ms, january.carried_cents) == (0, january.pool_cents)


def test_relay_pay_comes_from_what_viewers_signed_and_late_bytes_are_paid_once(
    tmp_path: Path, ledger: Ledger
) -> None:
    shelf = Shelf()
    film = shelf.add("big", {"ann": 10_000}, size_bytes=10**12)
    intake = open_intake(tmp_path)
    viewer = Viewer(1)
    pulses = [viewer.beat(film, n * 60_000, 0, kbytes=50_000_000) for n in range(4)]
    stamps = [(FIRST_DAY + 2) * DAY_MS + n * 60_000 for n in range(4)]
    intake.batch(batch(RELAY, [viewer], pulses[:3], stamps[:3]), NOON)
    books = closing(tmp_path, ledger, shelf)
    first = books.settle(MONTH, now_ms=NOON, as_of_ms=NOON).outcome.statement
    assert (first.relays[0].kbytes, first.relay_pay_cents) == (150_000_000, 300)
    intake.batch(batch(RELAY, [viewer], pulses, stamps, 2), NOON + 1)
    ledger.book_revenue(1_000, CLOSE_MS + DAY_MS, b"december")
    second = books.settle("2026-12", now_ms=DEC_CLOSE_MS).outcome.statement
    assert (second.relays[0].kbytes, second.relay_pay_cents) == (50_000_000, 100)


def test_of_two_bodies_only_the_one_a_later_pulse_links_to_counts(tmp_path: Path, ledger: Ledger) -> None:
    intake = open_intake(tmp_path)
    honest, twin = Viewer(1), Viewer(1)
    for viewer, at_ms in ((honest, 0), (twin, 1)):
        viewer.beat(FILM, 3_600_000 + at_ms, 0, state=1)
        viewer.beat(FILM, 3_660_000 + at_ms, 60_000)
    tail = honest.beat(FILM, 3_720_000, 60_000)
    intake.post(post([honest], [*twin.pulses, *honest.pulses[:2]]), NOON)
    books = closing(tmp_path, ledger, SHELF)
    # number 1: both are linked to, none counts; number 2: neither is linked to, none counts
    early = books.settle(MONTH, now_ms=CLOSE_MS, dry_run=True).outcome.statement
    assert early.viewed_ms == 0
    assert [line.code for line in early.uncounted] == ["equivocation"]
    intake.post(post([honest], [tail]), NOON)
    late = books.settle(MONTH, now_ms=CLOSE_MS).outcome.statement
    assert late.viewed_ms == 2_000 + 60_000


def test_an_unknown_title_earns_nothing_and_is_named(tmp_path: Path, ledger: Ledger) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1)
    intake.post(post([viewer], viewer.watch(bytes(32), 10)), NOON)
    s = closing(tmp_path, ledger, SHELF).settle(MONTH, now_ms=CLOSE_MS).outcome.statement
    assert (s.viewed_ms, [(c.code, c.ms) for c in s.uncounted]) == (0, [("unknown_title", 600_000)])


def test_a_month_with_pulses_may_not_be_skipped(tmp_path: Path, ledger: Ledger) -> None:
    evening(open_intake(tmp_path), [Viewer(1)])
    with pytest.raises(UsageError, match="2026-11 has pulses but is not settled"):
        closing(tmp_path, ledger, SHELF).settle("2026-12", now_ms=DEC_CLOSE_MS)
    assert ledger.settlements() == []


def test_settling_by_payer_needs_the_payers(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="--account"):
        closing(tmp_path, ledger, SHELF, Rules(mode="per_payer")).settle(MONTH, now_ms=CLOSE_MS)


def test_a_report_from_a_log_that_lost_something_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    intake = open_intake(tmp_path)
    evening(intake, [Viewer(1), Viewer(2)])
    intake.close()
    books = closing(tmp_path, ledger, SHELF)
    books.settle(MONTH, now_ms=CLOSE_MS)
    books.report(MONTH)
    with pytest.raises(UsageError, match="2026-12 is not settled"):
        books.report("2026-12")
    path = next((tmp_path / "intake" / "seg").glob("*.seg"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(LocalError, match="no longer give what was posted"):
        books.report(MONTH)


def test_a_month_closes_five_minutes_after_its_end() -> None:
    assert close_ms(MONTH) == CLOSE_MS
    assert close_ms("2026-12") == DEC_CLOSE_MS


@pytest.mark.parametrize(
    ("text", "now_ms", "found"),
    [
        ("2026-11-01T00:00:00Z", FIRST_MS + 5_000, FIRST_MS + 999),
        ("2026-11-01T00:00:00Z", FIRST_MS + 300, FIRST_MS + 300),
        ("2026-11-01T01:00:00.250+01:00", FIRST_MS + 5_000, FIRST_MS + 250),
    ],
)
def test_as_of_reads_a_whole_second_as_its_end(text: str, now_ms: int, found: int) -> None:
    assert parse_as_of(text, now_ms) == found


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-01T00:00:00", "1e9"])
def test_as_of_needs_a_time_with_a_zone(text: str) -> None:
    with pytest.raises(UsageError):
        parse_as_of(text, FIRST_MS)
