"""Seal records: what the rules leave of each closed session, made once and served signed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry

from farcast.origin.pulses.intake import Intake
from farcast.protocol.batch import Reject, SealRecord
from farcast.protocol.identity import unseal
from farcast.protocol.pulse import RETURN, START, SWITCH
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    FIRST_DAY,
    INTAKE,
    OFFICE,
    RELAY,
    TICKET,
    Viewer,
    batch,
    post,
)

DAY = (FIRST_DAY + 2) * DAY_MS
HOUR = 3_600_000
FILM = b"f" * 32


def opened(folder: Path, verify: Literal["eager", "chained"] = "eager", open_pulses: int = 250_000) -> Intake:
    return Intake(
        folder / "intake", OFFICE, lambda: [TICKET.key], INTAKE, lambda key: key == RELAY.key,
        CollectorRegistry(), verify=verify, open_pulses=open_pulses,
    )  # fmt: skip


def sealed(intake: Intake, viewer: Viewer) -> list[SealRecord]:
    return [unseal("seal", SealRecord, data, INTAKE.key) for data in intake.seals_for([viewer.tid])]


def relayed(viewer: Viewer, pulses: list[bytes], number: int = 1) -> bytes:
    """Return a relay's batch of pulses that it received as they were made."""
    return batch(RELAY, [viewer], pulses, [DAY + HOUR + at * 60_000 for at in range(len(pulses))], number)


@pytest.mark.parametrize("verify", ["eager", "chained"])
def test_a_session_is_closed_five_minutes_after_its_last_pulse(
    tmp_path: Path, verify: Literal["eager", "chained"]
) -> None:
    intake, viewer, now = opened(tmp_path, verify), Viewer(1), DAY + 2 * HOUR
    intake.batch(relayed(viewer, viewer.watch(FILM, 9)), now)
    assert intake.seal(now + 300_000) == 0
    assert intake.seal(now + 300_001) == 1
    assert sealed(intake, viewer) == [SealRecord(1, viewer.tid, 1, 10, 540_000, [])]
    assert intake.seal(now + 400_000) == 0


def test_a_switch_ends_a_session_and_a_start_begins_one(tmp_path: Path) -> None:
    intake, viewer, now = opened(tmp_path), Viewer(1), DAY + 2 * HOUR
    for minute, state in enumerate((START, 2, 2, SWITCH, START, 2, RETURN, 2, SWITCH)):
        viewer.beat(FILM, HOUR + minute * 60_000, 60_000 if state in (2, SWITCH) else 0, state=state)
    intake.batch(relayed(viewer, viewer.pulses), now)
    assert intake.seal(now + 120_000) == 0
    assert intake.seal(now + 120_001) == 3  # the last pulse says that it is the end
    assert [(one.first, one.last, one.counted_ms) for one in sealed(intake, viewer)] == [
        (1, 4, 180_000), (5, 6, 60_000), (7, 9, 120_000),
    ]  # fmt: skip


def test_a_gap_parts_sessions_and_is_named(tmp_path: Path) -> None:
    intake, viewer, now = opened(tmp_path), Viewer(1), DAY + 5 * HOUR
    viewer.watch(FILM, 2)
    viewer.beat(FILM, 2 * HOUR, 60_000)
    intake.post(post([viewer], viewer.pulses), now)
    intake.seal(now, every=True)
    assert sealed(intake, viewer) == [
        SealRecord(1, viewer.tid, 1, 3, 120_000, []),
        SealRecord(1, viewer.tid, 4, 4, 0, [Reject(4, "gap")]),
    ]


def test_the_end_of_the_day_closes(tmp_path: Path) -> None:
    intake, viewer = opened(tmp_path), Viewer(1)
    viewer.beat(FILM, DAY_MS - 1_000, 0, state=START)
    intake.post(post([viewer], viewer.pulses), DAY + DAY_MS + 299_000)
    assert intake.seal(DAY + DAY_MS + 299_999) == 0
    assert intake.seal(DAY + DAY_MS + 300_000) == 1


def test_records_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    intake, viewer, now = opened(tmp_path), Viewer(1), DAY + 2 * HOUR
    pulses = viewer.watch(FILM, 9)
    intake.batch(relayed(viewer, pulses[:5]), now)
    intake.seal(now, every=True)
    stamps = [DAY + HOUR + at * 60_000 for at in range(5, 10)]
    intake.batch(batch(RELAY, [viewer], pulses[5:], stamps, 2), now)
    intake.seal(now, every=True)
    assert [(one.first, one.last, one.counted_ms) for one in sealed(intake, viewer)] == [
        (1, 5, 240_000), (6, 10, 300_000),
    ]  # fmt: skip


@pytest.mark.parametrize("verify", ["eager", "chained"])
def test_memory_is_bounded_by_sealing_the_longest_silent_first(
    tmp_path: Path, verify: Literal["eager", "chained"]
) -> None:
    intake, now = opened(tmp_path, verify, open_pulses=100), DAY + 2 * HOUR
    viewers = [Viewer(number) for number in range(6)]
    for index, viewer in enumerate(viewers):
        intake.batch(relayed(viewer, viewer.watch(FILM, 29), index + 1), now + index)
    assert [len(sealed(intake, viewer)) for viewer in viewers] == [
        1,
        1,
        1,
        1,
        0,
        0,
    ]  # down to three quarters each time
    assert intake.counts().accepted == 180


@pytest.mark.parametrize("verify", ["eager", "chained"])
def test_records_acks_and_counts_outlive_a_restart_with_and_without_checkpoint(
    tmp_path: Path, verify: Literal["eager", "chained"]
) -> None:
    intake, now = opened(tmp_path, verify), DAY + 2 * HOUR
    done, going = Viewer(1), Viewer(2)
    intake.batch(relayed(done, done.watch(FILM, 5)), now)
    intake.seal(now, every=True)
    intake.batch(relayed(going, going.watch(FILM, 5)[:4], 2), now + 1_000)
    before = (
        sealed(intake, done),
        intake.counts(),
        intake.head(),
        intake.acks_for([done.tid, going.tid], now),
    )
    assert before[0]
    intake.close()
    checkpoint = tmp_path / "intake" / "checkpoint"
    assert checkpoint.is_file()
    for _ in range(2):
        again = opened(tmp_path, verify)
        after = (
            sealed(again, done),
            again.counts(),
            again.head(),
            again.acks_for([done.tid, going.tid], now),
        )
        assert after == before
        again.close()
        checkpoint.unlink()
    last = opened(tmp_path, verify)
    last.seal(now, every=True)
    assert [one.counted_ms for one in sealed(last, going)] == [180_000]
