"""Witnesses: a sample nobody can foretell, recomputed over the origin's own blocks, written into the log."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.origin.money.credit import credit
from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.inspection import Inspection
from farcast.origin.pulses.intake import Intake
from farcast.origin.pulses.segments import read_segments
from farcast.origin.pulses.witness import RESULTS, Sample, Segment, nearest
from farcast.protocol.beacon import HOUR_MS
from farcast.protocol.cid import Cid
from farcast.protocol.manifest import open_manifest
from farcast.protocol.pulse import ACTIVE, NO_WITNESS, START, WITNESS_REACH_MS, Viewing, read_pulse, witness
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.node.reel import film
from farcast.tests.unit.origin.mint import FIRST_DAY, INTAKE, OFFICE, SECRET, TICKET, Viewer, post, read

REEL = film(segments=400)
DIGEST = REEL.catalog.titles()["film"].cid.digest
MANIFEST = open_manifest(REEL.blocks[REEL.catalog.titles()["film"].cid])
DAY = FIRST_DAY + 2
NOON = DAY * DAY_MS + 12 * 3_600_000
HOUR = NOON // HOUR_MS - 1
BEACON = sha256(b"beacon").digest()
DAYS = range(FIRST_DAY, FIRST_DAY + 30)


class Origin:
    """An intake that is watched, over the film's blocks."""

    def __init__(self, folder: Path, *, one_in: int = 1) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.blocks: dict[Cid, bytes] = dict(REEL.blocks)
        self.beacons = {HOUR: BEACON}
        self.inspection = Inspection(
            OFFICE, Sample(SECRET, one_in), self.beacons.get,
            lambda digest: MANIFEST if digest == DIGEST else None, self.blocks.get, self.registry,
        )  # fmt: skip
        self.intake = Intake(
            folder / "intake", OFFICE, lambda: [TICKET.key], INTAKE, lambda _: False, self.registry,
            watch=self.inspection.hear,
        )  # fmt: skip

    def look(self) -> dict[str, int]:
        """Look at everything that waits; returns what the witnesses showed so far."""
        while self.inspection.look(lambda pulse: self.intake.condemn(pulse, NOON + 120_000)):
            pass
        found = {
            result: self.registry.get_sample_value("farcast_origin_witness_checks_total", {"result": result})
            for result in RESULTS
        }
        return {result: int(count) for result, count in found.items() if count}

    def counted(self, size: int = 1 << 20) -> tuple[int, dict[str, int]]:
        """Return the credited ms of the first entries of the log, and what was cut by reason."""
        payloads = read_segments(self.folder / "intake" / "seg")
        facts = Evidence(payloads, OFFICE, DAYS).facts(size, DAYS, {DIGEST: MANIFEST}.get)
        items = credit(facts, Rules())
        cuts: dict[str, int] = {}
        for code, ms in (cut for item in items for cut in item.cuts):
            cuts[code] = cuts.get(code, 0) + ms
        return sum(item.ms for item in items), cuts


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    made = Origin(tmp_path)
    yield made
    made.intake.close()


def block(position_ms: int, track: str = "v0") -> bytes:
    """Return the first block of the segment at a position."""
    return REEL.blocks[REEL.cids(f"{track}/seg-{position_ms // 2_000:05d}.m4s")[0]]


def watch(
    viewer: Viewer, marks: list[bytes], *, rendition: int = 0, beacon: int = HOUR, step_ms: int = 60_000
) -> bytes:
    """Return a post of a start and one pulse a minute with these witnesses."""
    at_ms = NOON - len(marks) * step_ms
    pulses = [viewer.signer.sign(at_ms, 0, beacon, Viewing(START, DIGEST, 0, rendition, [], NO_WITNESS))]
    for minute, mark in enumerate(marks, 1):
        viewing = Viewing(ACTIVE, DIGEST, minute * step_ms, rendition, [], mark)
        pulses.append(viewer.signer.sign(at_ms + minute * step_ms, step_ms, beacon, viewing))
    return post([viewer], pulses)


def honest(viewer: Viewer, minutes: int) -> list[bytes]:
    """Return the witnesses of who held the blocks."""
    return [
        witness(BEACON, viewer.tid, minute + 1, block(minute * 60_000)) for minute in range(1, minutes + 1)
    ]


def test_who_held_the_blocks_is_found_sound(origin: Origin) -> None:
    viewer = Viewer(1)
    origin.intake.post(watch(viewer, honest(viewer, 10)), NOON)
    assert origin.look() == {"sound": 10}
    assert origin.counted() == (600_000, {})


def test_any_segment_within_five_minutes_will_do_and_none_beyond(origin: Origin) -> None:
    viewer = Viewer(1)
    places = [60_000 + WITNESS_REACH_MS, 0, 0, 0, 0, 60_000, 60_000]  # at minute 7 that is six minutes back
    marks = [witness(BEACON, viewer.tid, seq, block(place)) for seq, place in enumerate(places, 2)]
    origin.intake.post(watch(viewer, marks), NOON)
    assert origin.look() == {"sound": 6, "false": 1}


def test_a_witness_of_the_sound_track_is_checked_by_its_rendition(origin: Origin) -> None:
    viewer = Viewer(1)
    marks = [witness(BEACON, viewer.tid, 2, block(60_000, "a0"))]
    origin.intake.post(watch(viewer, marks, rendition=1), NOON)
    assert origin.look() == {"sound": 1}


@pytest.mark.parametrize(
    "how", ["guessed", "other beacon", "other number", "other ticket", "other title's block"]
)
def test_a_false_witness_counts_nothing_and_stays_as_evidence_in_the_log(origin: Origin, how: str) -> None:
    viewer = Viewer(1)
    mark = {
        "guessed": b"\x01" * 16,
        "other beacon": witness(bytes(32), viewer.tid, 3, block(120_000)),
        "other number": witness(BEACON, viewer.tid, 2, block(120_000)),
        "other ticket": witness(BEACON, bytes(16), 3, block(120_000)),
        "other title's block": witness(BEACON, viewer.tid, 3, b"another film"),
    }[how]
    marks = honest(viewer, 5)
    marks[1] = mark
    origin.intake.post(watch(viewer, marks), NOON)
    before = origin.intake.head()[0]
    assert origin.look() == {"sound": 4, "false": 1}
    assert origin.intake.head()[0] == before + 1
    assert origin.intake.counts().rejected == {"witness": 1}
    assert origin.counted() == (240_000, {"witness": 60_000})
    assert origin.counted(before) == (300_000, {}), "what was settled before stays as it was"
    ack = read(origin.intake.acks_for([viewer.tid], NOON)[0]).tids[0]
    assert (ack.upto, ack.rejects) == (6, []), "an ack means stored, and that it is"


def test_after_a_restart_the_same_is_found_and_written_once(tmp_path: Path) -> None:
    first = Origin(tmp_path)
    viewer = Viewer(1)
    first.intake.post(watch(viewer, [b"\x01" * 16, *honest(viewer, 3)[1:]]), NOON)
    first.look()
    head, counted = first.intake.head(), first.counted()
    first.intake.close()
    again = Origin(tmp_path)
    assert again.look() == {"sound": 2, "false": 1}
    assert (again.intake.head(), again.counted()) == (head, counted)
    assert again.intake.counts() == first.intake.counts()
    again.intake.close()


def test_what_cannot_be_told_is_skipped_counted_and_paid(origin: Origin) -> None:
    viewers = [Viewer(number) for number in range(4)]
    origin.intake.post(watch(viewers[0], [NO_WITNESS]), NOON)
    origin.intake.post(watch(viewers[1], [b"\x01" * 16], beacon=HOUR - 1), NOON)
    origin.intake.post(watch(viewers[2], [b"\x01" * 16], rendition=2), NOON)
    assert origin.look() == {"not_made": 1, "no_beacon": 1, "unknown_title": 1}
    del origin.blocks[REEL.cids("v0/seg-00031.m4s")[0]]
    origin.intake.post(watch(viewers[3], [b"\x01" * 16]), NOON)
    assert origin.look()["no_block"] == 1
    assert origin.counted() == (240_000, {})


def test_a_title_whose_playlist_is_gone_is_skipped(origin: Origin) -> None:
    viewer = Viewer(1)
    for cid in REEL.cids("v0/index.m3u8"):
        del origin.blocks[cid]
    origin.intake.post(watch(viewer, honest(viewer, 1)), NOON)
    assert origin.look() == {"no_block": 1}


def test_pulses_that_claim_nothing_are_not_looked_at(origin: Origin) -> None:
    viewer = Viewer(1)
    origin.intake.post(watch(viewer, []), NOON)
    assert origin.look() == {}


def test_one_pulse_in_a_thousand_is_chosen_and_who_has_not_the_secret_cannot_know_which() -> None:
    viewer = Viewer(1)
    pulse, _ = read_pulse(viewer.beat(DIGEST, 0, 0))
    tids = [number.to_bytes(16, "big") for number in range(50)]

    def chosen(secret: bytes) -> set[tuple[bytes, int]]:
        sample = Sample(secret)
        pulses = (
            type(pulse)(1, tid, seq, 0, 0, 0, 0, bytes(32), bytes(192))
            for tid in tids
            for seq in range(1, 2_001)
        )
        return {(one.tid, one.seq) for one in pulses if one in sample}

    ours, theirs = chosen(SECRET), chosen(b"another")
    assert chosen(SECRET) == ours
    assert 60 <= len(ours) <= 150  # of 100,000
    assert len(ours & theirs) <= 3


@given(st.lists(st.integers(0, 3_000_000), max_size=60, unique=True), st.integers(0, 3_000_000))
def test_candidates_are_those_within_reach_the_one_playing_first(starts: list[int], position_ms: int) -> None:
    found = nearest([Segment(start, b"") for start in starts], position_ms)
    assert {one.start_ms for one in found} == {
        at for at in starts if abs(at - position_ms) <= WITNESS_REACH_MS
    }
    playing = max((one.start_ms for one in found if one.start_ms <= position_ms), default=None)
    assert playing is None or found[0].start_ms == playing
