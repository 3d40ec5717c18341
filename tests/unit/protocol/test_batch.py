"""Batches, receipts and acks: the way home and the answer."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.batch import (
    MAX_PULSES,
    PAGE,
    Ack,
    Batch,
    Parcel,
    PulsePost,
    Receipt,
    Reject,
    TidAck,
    batch_hash,
    covers,
    open_ack,
    open_batch,
    open_parcel,
    open_receipt,
    pulses_root,
    read_parcel,
    seal_parcel,
    seal_receipt,
)
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.merkle import EMPTY_ROOT
from farcast.protocol.ticket import MAX_SEQ

CARRIER = Identity(b"c" * 32)
INTAKE = Identity(b"i" * 32)
TID = bytes(16)


def a_batch(pulses: list[bytes], /, **changes: object) -> Batch:
    batch = Batch(1, CARRIER.key, 1, bytes(32), 1, 2, pulses_root(pulses), [], [7 for _ in pulses])
    return msgspec.structs.replace(batch, **changes)


def an_ack(*tids: TidAck) -> Ack:
    return Ack(1, bytes(32), list(tids), "segment", 0, 1, bytes(32), 1)


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 2**53 - 1))
def test_a_batch_reads_as_it_was_sealed(pulses: list[bytes], number: int) -> None:
    batch = a_batch(pulses, number=number, tickets=pulses[:3])
    data = seal_parcel(batch, pulses, CARRIER)
    assert open_parcel(data) == read_parcel(data) == (batch, pulses)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"number": 0}, "bad_batch"),
        ({"received_ms": [1]}, "bad_batch"),
        ({"received_ms": [1, 2, 3]}, "bad_batch"),
        ({"root": EMPTY_ROOT}, "bad_root"),
        ({"carrier": INTAKE.key}, "bad_signature"),
        ({"prev": b""}, "malformed"),
        ({"received_ms": [1, -1]}, "malformed"),
        ({"tickets": [b""] * (MAX_PULSES + 1)}, "malformed"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(RemoteError) as caught:
        open_parcel(seal_parcel(a_batch([b"a", b"b"], **changes), [b"a", b"b"], CARRIER))
    assert caught.value.reason == reason


@pytest.mark.parametrize("pulses", [[b"b", b"a"], [b"a"], [b"a", b"b", b""], [b"ab"], []])
def test_a_batch_beside_other_pulses_is_refused(pulses: list[bytes]) -> None:
    for batch in (a_batch([b"a", b"b"]), a_batch([b"a", b"b"], received_ms=[7 for _ in pulses])):
        with pytest.raises(RemoteError) as caught:
            open_parcel(seal_parcel(batch, pulses, CARRIER))
        assert caught.value.reason == ("bad_root" if len(batch.received_ms) == len(pulses) else "bad_batch")


@given(st.lists(st.binary(max_size=3), max_size=3 * PAGE), st.data())
def test_the_root_names_every_pulse_in_its_place(pulses: list[bytes], data: st.DataObject) -> None:
    other = list(pulses)
    place = data.draw(st.integers(0, len(pulses)))
    other[place : place + 1] = data.draw(st.lists(st.binary(max_size=3), max_size=2))
    assert (pulses_root(other) == pulses_root(pulses)) is (other == pulses)


@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536])
def test_a_batch_is_named_by_its_envelope_and_a_post_by_its_bytes(size: int) -> None:
    envelope = bytes(size)
    parcel, post = encode(Parcel(envelope, [b"a"])), encode(PulsePost(1, [envelope], [b"a"]))
    assert batch_hash(parcel) == sha256(envelope).digest() == batch_hash(encode(Parcel(envelope, [])))
    for whole in (post, b"", b"\x92", b"\x92\xc0"):
        assert batch_hash(whole) == sha256(whole).digest()


def test_batches_are_linked_by_the_hash_of_the_envelope() -> None:
    first = seal_parcel(a_batch([b"a"]), [b"a"], CARRIER)
    second = a_batch([b"b"], number=2, prev=batch_hash(first))
    assert open_parcel(seal_parcel(second, [b"b"], CARRIER))[0].prev == batch_hash(first)
    assert open_batch(decode(Parcel, first).batch) == a_batch([b"a"])


def test_a_full_post_and_a_full_batch_of_real_size_fit_the_limit() -> None:
    pulses = [number.to_bytes(2, "big") * 200 for number in range(MAX_PULSES)]
    batch = a_batch(pulses, tickets=[bytes(250)] * MAX_PULSES)
    assert open_parcel(seal_parcel(batch, pulses, CARRIER)) == (batch, pulses)
    post = PulsePost(1, [], pulses)
    assert decode(PulsePost, encode(post)) == post


@given(st.lists(st.binary(max_size=40), max_size=9), st.integers(0, 2**53 - 1))
def test_a_receipt_promises_just_these_pulses(pulses: list[bytes], at_ms: int) -> None:
    receipt = open_receipt(seal_receipt(pulses, at_ms, CARRIER))
    assert receipt == Receipt(1, CARRIER.key, pulses_root(pulses), len(pulses), at_ms)
    assert receipt.root != pulses_root([*pulses, b"another"])


def test_a_receipt_of_another_carrier_is_refused() -> None:
    receipt = Receipt(1, INTAKE.key, EMPTY_ROOT, 0, 1)
    with pytest.raises(RemoteError) as caught:
        open_receipt(CARRIER.seal("receipt", receipt))
    assert caught.value.reason == "bad_signature"


seqs = st.integers(0, MAX_SEQ)
tid_acks = st.builds(
    TidAck,
    st.binary(min_size=16, max_size=16),
    seqs,
    st.lists(seqs, max_size=9),
    st.lists(st.builds(Reject, seqs, st.text(max_size=40)), max_size=9),
)


@given(st.lists(tid_acks, max_size=9))
def test_an_ack_of_any_accepted_intake_key_is_taken(tids: list[TidAck]) -> None:
    ack = an_ack(*tids)
    data = INTAKE.seal("ack", ack)
    assert open_ack(data, [CARRIER.key, INTAKE.key]) == ack
    for keys, reason in (([CARRIER.key], "bad_signature"), ([], "no_key")):
        with pytest.raises(RemoteError) as caught:
            open_ack(data, list(keys))
        assert caught.value.reason == reason


@given(tid_acks, st.integers(-1, MAX_SEQ + 1))
def test_an_ack_covers_what_is_stored_or_rejected(ack: TidAck, seq: int) -> None:
    settled = {*range(1, ack.upto + 1), *ack.extra, *(reject.seq for reject in ack.rejects)}
    assert covers(ack, seq) is (seq in settled)


@pytest.mark.parametrize(
    ("seq", "covered"), [(0, False), (1, True), (3, True), (4, True), (5, False), (6, True), (7, False)]
)
def test_an_ack_covers_its_run_its_extras_and_its_rejects(seq: int, covered: bool) -> None:  # noqa: FBT001
    assert covers(TidAck(TID, 3, [6], [Reject(4, "late")]), seq) is covered
