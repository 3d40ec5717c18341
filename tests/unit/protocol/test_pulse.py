"""Pulses: a numbered, linked, signed and half-encrypted chain under one ticket."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.pulse import (
    ACTIVE,
    BOX_PLAIN_BYTES,
    MAX_DELTA_MS,
    Pulse,
    PulseSigner,
    Served,
    Viewing,
    check_pulse,
    open_viewing,
    pulse_hash,
    read_pulse,
    ticket_hash,
    witness,
)
from farcast.protocol.ticket import MAX_SEQ, Holder, Ticket, TicketOffice, open_ticket

SIGNER = Identity(b"t" * 32)
SESSION = Identity(b"s" * 32)
GRANT = TicketOffice(SIGNER, b"secret").issue(bytes(16), 20_000, SESSION.key, Holder(bytes(16), 0))
TICKET, TICKET_SIGNED = open_ticket(GRANT.ticket, [SIGNER.key])
VIEWING = Viewing(ACTIVE, bytes(32), 1, 0, [], bytes(16))

u32 = st.integers(0, 2**32 - 1)
served = st.builds(Served, st.integers(1, 4), st.binary(max_size=16), u32)
viewings = st.builds(
    Viewing,
    st.integers(1, 4),
    st.binary(min_size=32, max_size=32),
    u32,
    st.integers(0, 255),
    st.lists(served, max_size=4),
    st.binary(min_size=16, max_size=16),
)


def a_signer(seq: int = 0) -> PulseSigner:
    return PulseSigner(GRANT.ticket, GRANT.key, SESSION, seq=seq)


def resigned(pulse: Pulse, session: Identity = SESSION) -> bytes:
    return session.seal("pulse", pulse)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**53 - 1), st.integers(-5, 2 * MAX_DELTA_MS), u32, viewings), max_size=6
    )
)
def test_pulses_are_dense_linked_and_add_up(said: list[tuple[int, int, int, Viewing]]) -> None:
    signer = a_signer()
    prev, total = ticket_hash(TICKET_SIGNED), 0
    for seq, (at_ms, delta_ms, beacon, viewing) in enumerate(said, 1):
        data = signer.sign(at_ms, delta_ms, beacon, viewing)
        pulse = check_pulse(data, TICKET)
        counted = min(max(delta_ms, 0), MAX_DELTA_MS)
        total += counted
        assert (pulse.seq, pulse.prev, pulse.at_ms, pulse.beacon) == (seq, prev, at_ms, beacon)
        assert (pulse.delta_ms, pulse.cum_ms) == (counted, total)
        assert open_viewing(pulse, GRANT.key) == viewing
        prev = pulse_hash(read_pulse(data)[1].body)
    assert (signer.seq, signer.cum_ms, signer.prev) == (len(said), total, prev)


@given(viewings, viewings)
def test_all_boxes_have_one_size_and_hide_what_they_say(one: Viewing, two: Viewing) -> None:
    sizes = {len(a_signer().sign(1, 1, 1, viewing)) for viewing in (one, two)}
    assert len(sizes) == 1
    assert len(encode(one)) <= BOX_PLAIN_BYTES - 2


def test_a_signer_continues_where_a_stored_session_left_off() -> None:
    whole = a_signer()
    first = whole.sign(1, 10, 1, VIEWING)
    again = PulseSigner(GRANT.ticket, GRANT.key, SESSION, seq=whole.seq, cum_ms=whole.cum_ms, prev=whole.prev)
    assert again.sign(2, 20, 1, VIEWING) == whole.sign(2, 20, 1, VIEWING)
    assert check_pulse(first, TICKET).cum_ms == 10


def test_a_ticket_is_spent_after_its_last_number() -> None:
    signer = a_signer(seq=MAX_SEQ - 1)
    assert check_pulse(signer.sign(1, 1, 1, VIEWING), TICKET).seq == MAX_SEQ
    state = (signer.seq, signer.cum_ms, signer.prev)
    with pytest.raises(RemoteError) as caught:
        signer.sign(2, 1, 1, VIEWING)
    assert caught.value.reason == "spent"
    assert (signer.seq, signer.cum_ms, signer.prev) == state


def test_a_signer_needs_a_ticket() -> None:
    with pytest.raises(RemoteError):
        PulseSigner(b"no ticket", GRANT.key, SESSION)


def test_a_pulse_is_checked_against_its_own_ticket_and_session_key() -> None:
    data = a_signer().sign(1, 1, 1, VIEWING)
    other_tid = msgspec.structs.replace(TICKET, tid=b"x" * 16)
    other_key = msgspec.structs.replace(TICKET, session=SIGNER.key)
    cases: list[tuple[Ticket, str]] = [(other_tid, "wrong_ticket"), (other_key, "bad_signature")]
    for ticket, reason in cases:
        with pytest.raises(RemoteError) as caught:
            check_pulse(data, ticket)
        assert caught.value.reason == reason


def test_a_pulse_signed_as_another_kind_is_refused() -> None:
    body = read_pulse(a_signer().sign(1, 1, 1, VIEWING))[1].body
    with pytest.raises(RemoteError) as caught:
        check_pulse(encode(Signed(body, SESSION.sign("batch", body))), TICKET)
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    "changes",
    [{"seq": 2}, {"at_ms": 2}, {"cum_ms": 2}, {"delta_ms": 2}, {"beacon": 2}, {"prev": bytes(32)}],
)
def test_the_box_is_bound_to_every_field_in_clear(changes: dict[str, object]) -> None:
    pulse = check_pulse(a_signer().sign(1, 1, 1, VIEWING), TICKET)
    moved = check_pulse(resigned(msgspec.structs.replace(pulse, **changes)), TICKET)
    with pytest.raises(RemoteError) as caught:
        open_viewing(moved, GRANT.key)
    assert caught.value.reason == "bad_box"


def test_a_box_opens_with_its_ticket_key_alone() -> None:
    pulse = check_pulse(a_signer().sign(1, 1, 1, VIEWING), TICKET)
    with pytest.raises(RemoteError) as caught:
        open_viewing(pulse, bytes(32))
    assert caught.value.reason == "bad_box"


@pytest.mark.parametrize(
    "changes", [{"seq": 0}, {"seq": MAX_SEQ + 1}, {"delta_ms": MAX_DELTA_MS + 1}, {"box": b""}]
)
def test_a_pulse_out_of_range_is_malformed(changes: dict[str, object]) -> None:
    pulse = check_pulse(a_signer().sign(1, 1, 1, VIEWING), TICKET)
    with pytest.raises(RemoteError) as caught:
        read_pulse(resigned(msgspec.structs.replace(pulse, **changes)))
    assert caught.value.reason == "malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        read_pulse(data)


def test_a_witness_depends_on_beacon_ticket_number_and_block() -> None:
    base = (bytes(32), bytes(16), 1, b"block")
    others = [
        (b"b" * 32, *base[1:]),
        (base[0], b"t" * 16, 1, b"block"),
        (*base[:2], 2, b"block"),
        (*base[:3], b""),
    ]
    witnesses = {witness(*each) for each in (base, *others)}
    assert len(witnesses) == 5
    assert {len(each) for each in witnesses} == {16}


def test_a_pulse_names_the_hash_of_its_ticket_body_and_not_of_the_signature() -> None:
    signed = decode(Signed, GRANT.ticket)
    assert ticket_hash(signed) == ticket_hash(Signed(signed.body, bytes(64)))
    assert ticket_hash(signed) != pulse_hash(signed.body)
