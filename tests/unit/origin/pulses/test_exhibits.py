"""What is held against an account: evidence that anybody can check, and nothing that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from farcast.origin.pulses.exhibits import exhibits
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.evidence import EVIDENCE_LIMIT_BYTES, Evidence, open_evidence, seal_evidence
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.pulse import pulse_hash
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    FIRST_DAY,
    INTAKE,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    account,
    batch,
    open_intake,
    post,
)

FILM = Shelf().add("film", {"ann": 10_000})
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000


def name(pulse: bytes) -> bytes:
    return pulse_hash(decode(Signed, pulse).body)


def test_every_double_number_becomes_a_file_that_needs_no_secret(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    honest, twin, third, other = Viewer(1), Viewer(1), Viewer(1), Viewer(2)
    one, two, three = honest.beat(FILM, 0, 0), twin.beat(FILM, 1_000, 0), third.beat(FILM, 2_000, 0)
    intake.post(post([honest], [one]), NOON)
    intake.batch(batch(RELAY, [twin, other], [two, *other.watch(FILM, 2)], [NOON] * 4), NOON)
    intake.post(post([third], [three]), NOON)
    [found] = exhibits(lambda: read_segments(tmp_path / "intake" / "seg"), OFFICE, INTAKE)
    assert found[:5] == ("equivocation", account(1), honest.tid, FIRST_DAY + 2, 1)
    assert found.evidence is not None
    assert len(found.evidence) < EVIDENCE_LIMIT_BYTES // 4
    shown = open_evidence(found.evidence, [RELAY.key, INTAKE.key])
    assert shown == (honest.tid, FIRST_DAY + 2, 1, honest.session.key, sorted(map(name, (one, two, three))))


def test_a_false_witness_is_listed_without_a_file(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(3)
    pulses = viewer.watch(FILM, 2)
    intake.post(post([viewer], pulses), NOON)
    intake.condemn(pulses[2], NOON)
    intake.condemn(pulses[2], NOON)
    found = list(exhibits(lambda: read_segments(tmp_path / "intake" / "seg"), OFFICE, INTAKE))
    assert found == [("witness", account(3), viewer.tid, FIRST_DAY + 2, 3, None)]


def test_a_body_that_only_a_link_vouches_for_is_no_evidence_for_others(tmp_path: Path) -> None:
    intake = open_intake(tmp_path)
    honest, twin = Viewer(1), Viewer(1)
    one, two = honest.watch(FILM, 1)
    unsigned = encode(Signed(decode(Signed, one).body, bytes(64)))
    intake.post(post([honest], [unsigned, two]), NOON)
    intake.post(post([twin], [twin.beat(FILM, 9_000, 0)]), NOON)
    [found] = exhibits(lambda: read_segments(tmp_path / "intake" / "seg"), OFFICE, INTAKE)
    assert (found.code, found.seq, found.evidence) == ("equivocation", 1, None)


def test_what_does_not_contradict_itself_or_is_signed_by_another_is_no_evidence() -> None:
    honest, twin, other = Viewer(1), Viewer(1), Viewer(2)
    one, later = honest.watch(FILM, 1)
    two, strange = twin.beat(FILM, 1_000, 0), other.beat(FILM, 0, 0)
    good = seal_evidence(honest.ticket, [one, two], INTAKE)
    said = decode(Evidence, decode(Signed, good).body)
    assert open_evidence(good, [INTAKE.key]).seq == 1
    forged = encode(Signed(decode(Signed, two).body, bytes(64)))
    cases = {
        "the same twice": (INTAKE.seal("evidence", replace(said, pulses=[one, one])), "no_evidence"),
        "two numbers": (seal_evidence(honest.ticket, [one, later], INTAKE), "no_evidence"),
        "another order": (INTAKE.seal("evidence", replace(said, pulses=said.pulses[::-1])), "no_evidence"),
        "one body": (INTAKE.seal("evidence", replace(said, pulses=[one])), "malformed"),
        "another ticket's": (seal_evidence(honest.ticket, [one, strange], INTAKE), "wrong_ticket"),
        "not signed": (seal_evidence(honest.ticket, [one, forged], INTAKE), "bad_signature"),
        "another origin's": (seal_evidence(honest.ticket, [one, two], RELAY), "bad_signature"),
        "another kind": (INTAKE.seal("ack", said), "bad_signature"),
        "too large": (bytes(EVIDENCE_LIMIT_BYTES + 1), "too_large"),
    }
    for how, (data, reason) in cases.items():
        with pytest.raises(RemoteError) as caught:
            open_evidence(data, [INTAKE.key])
        assert caught.value.reason == reason, how
    with pytest.raises(RemoteError):
        open_evidence(good, [Identity(bytes(32)).key])
    with pytest.raises(RemoteError):
        open_evidence(good, [])
