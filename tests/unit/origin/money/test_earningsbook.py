"""What is shown of earnings is bounded, and so is how late it is: the rest is summed, nothing is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farcast.node.report import quiet
from farcast.origin.money import bursary, earningsbook, treasury
from farcast.protocol.rules import DAY_MS
from farcast.tests.unit.origin.countinghouse import CountingHouse
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, MONTH

SHARES = {"ann": 4_000, "bob": 2_500, "cat": 2_000, "dan": 1_000, "eve": 500}


@pytest.fixture
def watched(house: CountingHouse) -> CountingHouse:
    """Five payees of one title, and money to share."""
    house.bursary.open()
    house.watch(1, house.film("film", SHARES), 10)
    house.office.money.book("revenue", 10_000)
    house.now_ms = (FIRST_DAY + 20) * DAY_MS
    return house


def shown(house: CountingHouse) -> dict[str, float]:
    """Return the metric of payees."""
    return {
        sample.labels["id"]: sample.value
        for family in house.bursary.book.collect()
        for sample in family.samples
        if sample.name == "farcast_origin_earnings_cents" and sample.labels["kind"] == "payee"
    }


def test_of_many_payees_the_largest_are_named_and_the_others_summed(
    watched: CountingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.bursary.book.refresh(watched.now_ms)
    everybody = shown(watched)
    assert everybody == {name: 9_500 * points / 10_000 for name, points in SHARES.items()}
    monkeypatch.setattr(earningsbook, "MAX_LABELLED", 2)
    largest = shown(watched)
    assert set(largest) == {"ann", "bob", "other"}
    assert sum(largest.values()) == sum(everybody.values())
    monkeypatch.setattr(bursary, "LISTED_PAYEES", 2)
    told = watched.office.perform("earnings", {}, quiet)
    assert [row["payee"] for row in told["months"][0]["payees"]] == ["ann", "bob"]
    assert told["payees"] == len(SHARES)
    (eve,) = watched.office.perform("earnings", {"payee": "eve"}, quiet)["months"][0]["payees"]
    assert eve["paid_cents"] == 475


def test_a_dry_run_lists_so_many_differences_and_counts_all(
    watched: CountingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.now_ms = CLOSE_MS
    arguments = {"month": MONTH, "dry_run": True}
    whole = watched.office.perform("settle", arguments, quiet)
    assert whole["differences"] == len(whole["difference"]) > len(SHARES)
    assert sum(row["would_post_cents"] for row in whole["difference"]) == 0
    monkeypatch.setattr(treasury, "LISTED_PAYEES", 3)
    listed = watched.office.perform("settle", arguments, quiet)
    assert listed["difference"] == whole["difference"][:3]
    assert (listed["differences"], listed["digest"]) == (whole["differences"], whole["digest"])


def test_the_metrics_rest_half_a_minute_at_most_however_long_counting_takes(
    watched: CountingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, clock = watched.bursary.book, [1_000.0]
    computed = book.of

    def slow(month: str, now_ms: int, *, wait: bool = True) -> object:
        clock[0] += 20.0
        return computed(month, now_ms, wait=wait)

    monkeypatch.setattr(earningsbook, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(book, "of", slow)
    book.refresh(watched.now_ms)
    before = shown(watched)
    watched.office.money.book("revenue", 10_000)
    clock[0] += earningsbook.LATEST_S - 0.1
    book.refresh(watched.now_ms)
    assert shown(watched) == before
    clock[0] += 0.1
    book.refresh(watched.now_ms)
    assert shown(watched) == {name: 2 * cents for name, cents in before.items()}
