from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.pulses.evidence import Evidence, log_root
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.merkle import leaf_hash, root_of
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CARRIER,
    FIRST_DAY,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    account,
    batch,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
DAYS = range(FIRST_DAY, FIRST_DAY + 30)
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000


def evidence(folder: Path, days: range = DAYS) -> Evidence:
    return Evidence(read_segments(folder / "intake" / "seg"), OFFICE, days)


@given(st.lists(st.binary(max_size=3), max_size=40))
def test_the_log_root_is_the_trees(payloads: list[bytes]) -> None:
    assert log_root([leaf_hash(payload) for payload in payloads]) == root_of(payloads)


def test_facts_name_account_title_and_smallest_counting_stamp(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(5, device=3)
    pulse = viewer.beat(FILM, 3_600_000, 0, kbytes=77)
    intake.batch(batch(CARRIER, [viewer], [pulse], [NOON - 9_000]), NOON)
    intake.batch(batch(RELAY, [viewer], [pulse], [NOON - 3_000]), NOON + 1)
    intake.batch(batch(RELAY, [viewer], [pulse], [NOON - 5_000], 2), NOON + 2)
    found = evidence(tmp_path)
    stamps = [found.facts(size, DAYS, SHELF.manifests.get)[0].received_ms for size in (1, 2, 3)]
    assert stamps == [NOON, NOON - 3_000, NOON - 5_000]
    fact = found.facts(3, DAYS, SHELF.manifests.get)[0]
    assert (fact.account, fact.device, fact.manifest) == (account(5), 3, FILM)
    assert (fact.served, fact.code) == (((RELAY.key[:16], 77),), "")
    assert found.facts(0, DAYS, SHELF.manifests.get) == []


def test_an_earlier_size_of_the_log_is_answered_as_it_was(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    first, second = Viewer(1), Viewer(2)
    intake.post(post([first], first.watch(FILM, 3)), NOON)
    intake.post(post([second], second.watch(FILM, 5)), NOON + 10)
    found = evidence(tmp_path)
    assert (found.size_at(NOON - 1), found.size_at(NOON), found.size_at(NOON + 10)) == (0, 1, 2)
    assert found.stored(1) == {first.tid: 4}
    assert found.stored(2) == {first.tid: 4, second.tid: 6}
    assert log_root(found.leaves) == intake.head()[1]


def test_tickets_of_other_days_are_known_by_month_only(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1)
    intake.post(post([viewer], viewer.watch(FILM, 3)), NOON)
    found = evidence(tmp_path, range(FIRST_DAY + 10, FIRST_DAY + 20))
    assert found.months(1) == {"2026-11"}
    assert found.months(0) == set()
    assert (found.stored(1), found.facts(1, DAYS, SHELF.manifests.get)) == ({}, [])
