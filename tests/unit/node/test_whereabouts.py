# pyright: reportPrivateUsage=false
"""Relays say where they are by now; only listed ones, only newer records, new addresses only once met."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.whereabouts import (
    AHEAD_MS,
    CANDIDATES_KEPT,
    LIFE_MS,
    NEWS,
    RELAYS_KEPT,
    TO_PROVE,
    TRY_MS,
    Whereabouts,
)
from farcast.protocol.directory import Endpoint, RelayRecord

NOW = 1_800_000_000_000
HOUR = 3_600_000
HOME, MOVED = Endpoint("192.0.2.1", 7433, web=False), Endpoint("192.0.2.2", 7433, web=False)


def record(
    relay: int = 1, at_ms: int = NOW, endpoint: Endpoint = HOME, life_ms: int = 24 * HOUR
) -> RelayRecord:
    """Return what a relay says of itself."""
    return RelayRecord(1, relay.to_bytes(32, "big"), [endpoint], "", at_ms, at_ms + life_ms)


LISTED = [record(at_ms=NOW - HOUR)]


def test_a_relay_still_where_it_was_stays_known_past_its_old_record() -> None:
    core = Whereabouts()
    assert core.hear(record(), LISTED, NOW) == NEWS
    assert core.records(LISTED, NOW) == [record()]
    assert core.hear(record(), LISTED, NOW) == "known"
    assert core.records(LISTED, NOW + 25 * HOUR) == LISTED  # its own record has run out as well
    newest = [record(at_ms=NOW + HOUR)]
    assert core.records(newest, NOW + HOUR) == newest


def test_what_was_heard_while_an_older_address_was_tried_holds() -> None:
    core = Whereabouts()
    moved, back = record(endpoint=MOVED), record(at_ms=NOW + HOUR)
    assert core.hear(moved, LISTED, NOW) == TO_PROVE
    assert core.candidate(NOW) == moved
    assert core.hear(back, LISTED, NOW + HOUR) == NEWS
    core.proven(moved, [MOVED])
    assert core.records(LISTED, NOW + HOUR) == [back]


def test_a_new_address_holds_once_the_relay_was_met_there() -> None:
    core = Whereabouts()
    moved = record(endpoint=MOVED)
    assert core.hear(moved, LISTED, NOW) == TO_PROVE
    assert core.records(LISTED, NOW) == LISTED
    assert core.candidate(NOW) == moved
    assert core.candidate(NOW) is None
    core.proven(moved, [])
    assert core.records(LISTED, NOW) == LISTED
    core.proven(moved, [MOVED])
    assert core.records(LISTED, NOW) == [moved]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (record(2), "unlisted"),
        (LISTED[0], "known"),
        (record(at_ms=NOW + AHEAD_MS + 1), "future"),
        (record(at_ms=NOW - 2 * HOUR, life_ms=HOUR), "expired"),
        (record(life_ms=LIFE_MS + 1), "too_long"),
    ],
)
def test_anything_else_has_its_reason(said: RelayRecord, reason: str) -> None:
    core = Whereabouts()
    assert core.hear(said, LISTED, NOW) == reason
    assert core.candidate(NOW) is None
    assert core.records(LISTED, NOW) == LISTED


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(0, TRY_MS)), max_size=60))
def test_no_relay_sends_anybody_to_new_addresses_often(events: list[tuple[int, int, int]]) -> None:
    core, now = Whereabouts(), NOW
    listed = [record(number, NOW - HOUR) for number in (1, 2, 3)]
    tried: dict[bytes, list[int]] = {}
    for relay, host, pause_ms in events:
        now += pause_ms
        core.hear(record(relay, now, Endpoint(f"192.0.2.{host + 2}", 80, web=False)), listed, now)
        while (found := core.candidate(now)) is not None:
            tried.setdefault(found.relay, []).append(now)
    for times in tried.values():
        assert all(later - earlier >= TRY_MS for earlier, later in pairwise(times))


def test_what_it_remembers_is_bounded() -> None:
    core = Whereabouts()
    count = RELAYS_KEPT + 50
    listed = [record(number, NOW - HOUR) for number in range(count)]
    by_relay = {one.relay: [one] for one in listed}
    for number in range(count):
        core.hear(record(number), by_relay[record(number).relay], NOW)
        core.hear(record(number, NOW + 1, MOVED), by_relay[record(number).relay], NOW)
    assert len(core._newer) == RELAYS_KEPT
    assert len(core._candidates) == CANDIDATES_KEPT
    while core.candidate(NOW) is not None:
        pass
    assert len(core._tried) == CANDIDATES_KEPT
