from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.origin.pulses.admission import Verify
from farcast.origin.pulses.intake import Intake
from farcast.origin.pulses.segments import Place, SegmentLog
from farcast.protocol.batch import Parcel, Reject, SealRecord, TidAck, batch_hash, covers
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError, StoreFullError
from farcast.protocol.identity import Identity, Signed, unseal
from farcast.protocol.pulse import PulseSigner
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice
from farcast.tests.unit.origin.mint import (
    CARRIER,
    FIRST_DAY,
    INTAKE,
    RELAY,
    SECRET,
    Shelf,
    Viewer,
    account,
    batch,
    open_intake,
    post,
    read,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"studio": 10_000})
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return open_intake(tmp_path)


def ack_of(ack: bytes, viewer: Viewer) -> TidAck:
    return next(item for item in read(ack).tids if item.tid == viewer.tid)


def sealed(intake: Intake, viewer: Viewer) -> list[SealRecord]:
    return [unseal("seal", SealRecord, data, INTAKE.key) for data in intake.seals_for([viewer.tid])]


def forged(pulse: bytes) -> bytes:
    """Break the signature, not the body."""
    signed = decode(Signed, pulse)
    return encode(Signed(signed.body, bytes(64)))


def test_a_post_is_acked_with_the_contiguous_number_and_the_log_head(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 5)
    body = post([viewer], [pulses[0], pulses[1], pulses[4]])
    ack = read(intake.post(body, NOON))
    assert ack.tids == [TidAck(viewer.tid, 2, [5], [])]
    assert ack.batch == batch_hash(body)
    assert (ack.log_size, ack.log_root) == intake.head() == (1, ack.log_root)
    assert ack_of(intake.post(post([viewer], pulses), NOON), viewer) == TidAck(viewer.tid, 6, [], [])


def test_a_repetition_is_acked_again_and_stored_once(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 3)
    first = batch(RELAY, [viewer], pulses, [NOON] * 4)
    for _ in range(3):
        assert read(intake.batch(first, NOON)).tids == [TidAck(viewer.tid, 4, [], [])]
    intake.post(post([viewer], pulses), NOON)
    counts = intake.counts()
    assert (counts.accepted, counts.duplicate, intake.head()[0]) == (4, 12, 1)


def test_the_way_of_first_arrival_counts(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 5)
    intake.batch(batch(RELAY, [viewer], pulses[:3], [NOON] * 3), NOON)
    intake.batch(batch(CARRIER, [viewer], pulses[2:5], [NOON] * 3), NOON)
    intake.post(post([viewer], pulses), NOON)
    assert intake.counts().by_path == {"relay": 3, "mesh": 2, "direct": 1}


def test_everything_is_rebuilt_from_the_segment_files(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    viewer, other = Viewer(1), Viewer(2)
    intake.batch(batch(RELAY, [viewer], viewer.watch(FILM, 5), [NOON] * 6), NOON)
    intake.post(post([other], other.watch(FILM, 2)[1:]), NOON)
    late = other.beat(FILM, 23 * 3_600_000, 0)
    intake.post(post([other], [late]), NOON)
    before, head = intake.counts(), intake.head()
    acks = [read(data).tids for data in intake.acks_for([viewer.tid, other.tid], NOON)]
    intake.close()
    again = open_intake(tmp_path)
    assert (again.counts(), again.head()) == (before, head)
    assert [read(data).tids for data in again.acks_for([viewer.tid, other.tid], NOON)] == acks
    assert acks == [[TidAck(viewer.tid, 6, [], []), TidAck(other.tid, 0, [2, 3], [Reject(4, "future")])]]


def test_one_bad_pulse_loses_only_itself_with_its_reason(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 4)
    bad = [pulses[0], pulses[1], pulses[2], pulses[3], forged(pulses[4]), b"\xc0"]
    ack = read(intake.batch(batch(RELAY, [viewer], bad, [NOON] * 6), NOON))
    assert ack.tids == [
        TidAck(viewer.tid, 4, [], [Reject(0, "bad_signature")]),
        TidAck(bytes(16), 0, [], [Reject(0, "malformed")]),
    ]
    assert intake.counts().rejected == {"bad_signature": 1, "malformed": 1}


def test_a_forged_pulse_never_makes_its_viewer_delete_the_real_one(intake: Intake) -> None:
    viewer = Viewer(1)
    pulse = viewer.beat(FILM, 0, 0)
    ack = ack_of(intake.post(post([viewer], [forged(pulse)]), NOON), viewer)
    assert not covers(ack, 1)
    assert covers(ack_of(intake.post(post([viewer], [pulse]), NOON), viewer), 1)


def test_a_body_that_a_signed_later_pulse_names_counts_as_signed(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 3)
    mixed = [forged(pulses[0]), forged(pulses[1]), pulses[2]]
    assert ack_of(intake.post(post([viewer], mixed), NOON), viewer) == TidAck(viewer.tid, 3, [], [])


def test_the_origins_own_clock_rejects_what_lies_ahead_and_a_relay_cannot(intake: Intake) -> None:
    viewer = Viewer(1)
    viewer.beat(FILM, 12 * 3_600_000 + 120_000, 0)
    viewer.beat(FILM, 12 * 3_600_000 + 120_001, 0)
    lying = batch(RELAY, [viewer], viewer.pulses, [NOON - 3_600_000] * 2)
    assert ack_of(intake.batch(lying, NOON), viewer) == TidAck(viewer.tid, 1, [], [Reject(2, "future")])


@pytest.mark.parametrize(
    ("at_ms", "beacon", "now_ms", "code"),
    [
        (-300_001, 0, NOON, "wrong_day"),
        (DAY_MS + 300_000, 0, NOON + DAY_MS, "wrong_day"),
        (0, 0, (FIRST_DAY + 40) * DAY_MS + 1, "late"),
        (0, (FIRST_DAY + 2) * 24 + 1, NOON, "before_beacon"),
    ],
)
def test_a_signed_pulse_that_can_never_count_is_rejected_for_good(
    intake: Intake, at_ms: int, beacon: int, now_ms: int, code: str
) -> None:
    viewer = Viewer(1)
    pulse = viewer.beat(FILM, at_ms, 0, beacon=beacon)
    ack = ack_of(intake.post(post([viewer], [pulse]), now_ms), viewer)
    assert ack == TidAck(viewer.tid, 0, [], [Reject(1, code)])
    assert covers(ack, 1)


@pytest.mark.parametrize(
    ("at_ms", "beacon", "now_ms"),
    [
        (-300_000, 0, NOON),
        (DAY_MS + 299_999, 0, NOON + DAY_MS),
        (0, 0, (FIRST_DAY + 40) * DAY_MS),
        (0, (FIRST_DAY + 2) * 24, NOON),
        (-110_000, (FIRST_DAY + 2) * 24, NOON),
    ],
)
def test_at_the_edge_of_its_day_window_and_beacon_a_pulse_is_taken(
    intake: Intake, at_ms: int, beacon: int, now_ms: int
) -> None:
    viewer = Viewer(1)
    pulse = viewer.beat(FILM, at_ms, 0, beacon=beacon)
    assert ack_of(intake.post(post([viewer], [pulse]), now_ms), viewer).upto == 1


def test_a_ticket_of_another_key_or_origin_opens_nothing(intake: Intake) -> None:
    viewer = Viewer(1)
    pulse = viewer.beat(FILM, 0, 0)
    session = Identity(b"\x66" * 32)
    foreign = TicketOffice(Identity(b"\x77" * 32), SECRET)
    grant = foreign.issue(viewer.tid, viewer.day, session.key, Holder(account(1), 0))
    forged_ticket = Viewer(1)
    forged_ticket.ticket = grant.ticket
    ack = read(intake.post(post([forged_ticket], [pulse]), NOON))
    assert ack.tids == [TidAck(viewer.tid, 0, [], [Reject(0, "no_ticket")])]
    assert intake.head()[0] == 0


def test_a_pulse_whose_box_does_not_open_is_stored_and_its_seal_says_so(intake: Intake) -> None:
    viewer = Viewer(1)
    viewer.signer = PulseSigner(viewer.ticket, bytes(32), viewer.session)
    ack = ack_of(intake.post(post([viewer], [viewer.beat(FILM, 0, 9_000)]), NOON), viewer)
    assert ack == TidAck(viewer.tid, 1, [], [])
    intake.seal(NOON, every=True)
    assert sealed(intake, viewer) == [SealRecord(1, viewer.tid, 1, 1, 0, [Reject(1, "bad_box")])]


def test_a_second_body_under_one_number_is_kept_as_evidence(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    honest, twin = Viewer(1), Viewer(1)
    one, two = honest.beat(FILM, 0, 0), twin.beat(FILM, 1_000, 0)
    intake.post(post([honest], [one]), NOON)
    ack = ack_of(intake.post(post([twin], [two]), NOON), honest)
    assert ack == TidAck(honest.tid, 1, [], [])
    assert intake.counts().rejected == {"equivocation": 1}
    assert intake.head()[0] == 2


def test_bodies_under_one_number_are_bounded(intake: Intake) -> None:
    for at_ms in range(8):
        twin = Viewer(1)
        intake.post(post([twin], [twin.beat(FILM, at_ms, 0)]), NOON)
    assert intake.counts().rejected == {"equivocation": 3, "too_many_bodies": 4}
    assert intake.head()[0] == 4


def test_an_earlier_relay_stamp_is_news_and_a_carriers_is_not(intake: Intake) -> None:
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 1)
    intake.post(post([viewer], pulses), NOON)
    intake.batch(batch(CARRIER, [viewer], pulses, [NOON - 60_000] * 2), NOON)
    assert intake.head()[0] == 1
    intake.batch(batch(RELAY, [viewer], pulses, [NOON - 60_000] * 2), NOON)
    assert intake.head()[0] == 2


def test_a_batch_not_signed_by_its_carrier_is_no_batch(intake: Intake) -> None:
    viewer = Viewer(1)
    data = batch(RELAY, [viewer], viewer.watch(FILM, 1), [NOON] * 2)
    parcel = decode(Parcel, data)
    broken = encode(Signed(decode(Signed, parcel.batch).body, bytes(64)))
    with pytest.raises(RemoteError, match="not signed by"):
        intake.batch(encode(Parcel(broken, parcel.pulses)), NOON)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_posted_raise_a_remote_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    intake = open_intake(tmp_path_factory.mktemp("intake"))
    for take in (intake.post, intake.batch):
        with pytest.raises(RemoteError):
            take(data, NOON)
    intake.close()


@pytest.mark.parametrize("verify", ["eager", "chained"])
def test_nothing_is_acked_that_the_disk_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: Verify
) -> None:
    intake = open_intake(tmp_path, verify=verify)
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 4)

    def full(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    parts = [pulses[:2], pulses[2:]]
    batches = [batch(RELAY, [viewer], part, [NOON] * len(part), at) for at, part in enumerate(parts, 1)]
    for number, data in enumerate(batches):
        acks = intake.acks_for([viewer.tid], NOON)
        assert len(acks) == number
        with monkeypatch.context() as patch:
            patch.setattr("os.write", full)
            with pytest.raises(StoreFullError):
                intake.batch(data, NOON)
        assert intake.counts().accepted == 2 * number
        assert [read(ack).tids for ack in intake.acks_for([viewer.tid], NOON)] == [
            read(ack).tids for ack in acks
        ]
        intake.batch(data, NOON)
    assert ack_of(intake.batch(batches[1], NOON), viewer).upto == 5
    intake.prove(NOON)
    assert (intake.counts().accepted, intake.counts().rejected) == (5, {})


def test_a_torn_frame_is_cut_counted_and_taken_again(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 3)
    intake.post(post([viewer], pulses[:2]), NOON)
    intake.post(post([viewer], pulses[2:]), NOON)
    intake.close()
    path = next((tmp_path / "intake" / "seg").glob("*.seg"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 7)
    registry = CollectorRegistry()
    again = open_intake(tmp_path, registry)
    assert again.torn_bytes > 0
    assert registry.get_sample_value("farcast_origin_intake_torn_bytes") == again.torn_bytes
    assert again.counts().accepted == 2
    assert ack_of(again.post(post([viewer], pulses), NOON), viewer).upto == 4


def test_the_metrics_say_what_the_counts_say(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    intake = open_intake(tmp_path, registry)
    viewer = Viewer(1)
    pulses = viewer.watch(FILM, 2)
    intake.batch(batch(RELAY, [viewer], pulses, [NOON] * 3), NOON)
    intake.post(post([viewer], [*pulses, b"x"]), NOON)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"farcast_origin_{name}", labels)

    assert value("pulses_accepted_total", path="relay") == 3
    assert value("pulses_accepted_total", path="direct") == 0
    assert value("pulses_duplicate_total") == 3
    assert value("pulses_rejected_total", reason="malformed") == 1
    assert value("intake_log_entries") == 1


def test_posts_that_wait_together_share_a_sync_and_each_ack_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = open_intake(tmp_path)
    viewers = [Viewer(number) for number in range(12)]
    bodies = [post([viewer], viewer.watch(FILM, 3)) for viewer in viewers]
    intake.post(bodies[0], NOON)
    written, syncs = 1, 0
    first, several = threading.Event(), threading.Event()
    durable = 0

    def slow(_: int) -> None:
        nonlocal syncs, durable
        syncs += 1
        reached = written
        first.set()
        assert several.wait(10)  # while this one is under way the others are judged and written
        durable = max(durable, reached)

    real = SegmentLog.write

    def write(log: SegmentLog, payload: bytes, at_ms: int) -> Place:
        nonlocal written
        place = real(log, payload, at_ms)
        written += 1
        return place

    monkeypatch.setattr(SegmentLog, "write", write)
    monkeypatch.setattr("os.fdatasync", slow)
    with ThreadPoolExecutor(12) as pool:
        acks = [pool.submit(intake.post, bodies[1], NOON)]
        assert first.wait(10)
        acks += [pool.submit(intake.post, body, NOON) for body in bodies[2:]]
        while written < 12:
            time.sleep(0.001)
        several.set()
        sizes = [read(ack.result()).log_size for ack in acks]
    assert syncs == 2
    assert sorted(sizes) == list(range(2, 13))
    assert durable == 12
    assert intake.counts().accepted == 48
