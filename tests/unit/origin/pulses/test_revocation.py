"""Revoked accounts: what was watched before counts whenever it comes, what came after never does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry

from farcast.origin.money.credit import credit
from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.batch import Reject, TidAck
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    FIRST_DAY,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    account,
    batch,
    open_intake,
    post,
    read,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
DAY = FIRST_DAY + 2
DAYS = range(FIRST_DAY, FIRST_DAY + 30)
ONE_MS = DAY * DAY_MS + 3_600_000
"""When the viewers begin to watch."""
ENDED_MS = ONE_MS + 5 * 60_000
BOTH = pytest.mark.parametrize("verify", ["eager", "chained"])


def counted_ms(folder: Path) -> dict[bytes, int]:
    """Return the milliseconds that count, by account, as the raw log tells it."""
    facts = Evidence(read_segments(folder / "intake" / "seg"), OFFICE, DAYS).facts(
        10**6, DAYS, SHELF.manifests.get
    )
    found: dict[bytes, int] = {}
    for item in credit(facts, Rules()):
        found[item.fact.account] = found.get(item.fact.account, 0) + item.ms
    return found


@BOTH
@pytest.mark.parametrize("hold_h", [0, 30], ids=["live", "delayed"])
def test_time_after_the_revocation_never_counts_and_time_before_always_does(
    tmp_path: Path, verify: Literal["eager", "chained"], hold_h: int
) -> None:
    revoked: dict[bytes, int] = {}
    intake = open_intake(tmp_path, verify=verify, revoked=revoked)
    alice, bob = Viewer(1, DAY), Viewer(2, DAY)
    pulses = [*zip(alice.watch(FILM, 9), bob.watch(FILM, 9), strict=True)]
    for minute, pair in enumerate(pulses):
        at_ms = ONE_MS + minute * 60_000
        if at_ms > ENDED_MS:
            revoked[account(1)] = ENDED_MS  # the desk's word, while the intake runs
        if not hold_h:
            intake.batch(batch(RELAY, [alice, bob], pair, [at_ms + 500] * 2, minute + 1), at_ms + 900)
    if hold_h:
        late_ms = ONE_MS + hold_h * 3_600_000
        everything = [pulse for pair in reversed(pulses) for pulse in pair]
        intake.batch(batch(RELAY, [alice, bob], everything, [late_ms] * 20), late_ms)
    told = {tid.tid: tid for data in intake.acks_for([alice.tid, bob.tid], ONE_MS) for tid in read(data).tids}
    assert told == {
        alice.tid: TidAck(alice.tid, 6, [], [Reject(seq, "revoked") for seq in range(7, 11)]),
        bob.tid: TidAck(bob.tid, 10, [], []),
    }
    assert intake.counts().rejected == {"revoked": 4}
    intake.close()
    assert counted_ms(tmp_path) == {account(1): 5 * 60_000, account(2): 9 * 60_000}
    again = open_intake(tmp_path, verify=verify, revoked=revoked)
    assert [read(data).tids for data in again.acks_for([alice.tid], ONE_MS)] == [[told[alice.tid]]]
    again.close()


@BOTH
def test_tickets_issued_ahead_end_with_the_account_though_nobody_saw_them_before(
    tmp_path: Path, verify: Literal["eager", "chained"]
) -> None:
    registry = CollectorRegistry()
    intake = open_intake(tmp_path, registry, verify=verify, revoked={account(1): ENDED_MS})
    ahead = Viewer(1, DAY + 7)
    pulses = ahead.watch(FILM, 3)
    now_ms = ONE_MS + 7 * DAY_MS + 200_000
    ack = read(intake.batch(batch(RELAY, [ahead], pulses, [now_ms] * 4), now_ms))
    assert ack.tids == [TidAck(ahead.tid, 0, [], [Reject(seq, "revoked") for seq in range(1, 5)])]
    labels = {"reason": "revoked"}
    assert registry.get_sample_value("farcast_origin_pulses_rejected_total", labels) == 4
    intake.close()


def test_the_exact_millisecond_of_the_revocation_is_the_last_that_counts(tmp_path: Path) -> None:
    intake = open_intake(tmp_path, revoked={account(1): ENDED_MS})
    viewer = Viewer(1, DAY)
    first = viewer.beat(FILM, ENDED_MS - DAY * DAY_MS, 0)
    second = viewer.beat(FILM, ENDED_MS - DAY * DAY_MS + 1, 0)
    ack = read(intake.post(post([viewer], [first, second]), ENDED_MS + 60_000))
    assert ack.tids == [TidAck(viewer.tid, 1, [], [Reject(2, "revoked")])]
    intake.close()
