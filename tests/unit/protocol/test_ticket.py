"""Tickets: valid for one day, readable as to their holder by the origin alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.ticket import DAY_GRACE_MS, DAY_MS, Holder, Ticket, TicketOffice, open_ticket

SIGNER = Identity(b"t" * 32)
SESSION = Identity(b"s" * 32)
SECRET = b"secret of the ticket office, 32 B"
OFFICE = TicketOffice(SIGNER, SECRET)
HOLDER = Holder(b"account pseudony", 7)
TID = bytes(range(16))


def issue(tid: bytes = TID, day: int = 20_000, holder: Holder = HOLDER) -> Ticket:
    return open_ticket(OFFICE.issue(tid, day, SESSION.key, holder).ticket, [SIGNER.key])[0]


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**16 - 1),
    st.builds(Holder, st.binary(min_size=16, max_size=16), st.integers(0, 2**16 - 1)),
)
def test_a_ticket_reads_as_issued_and_only_the_origin_knows_for_whom(
    tid: bytes, day: int, holder: Holder
) -> None:
    ticket = issue(tid, day, holder)
    assert (ticket.tid, ticket.day, ticket.session) == (tid, day, SESSION.key)
    assert holder.account not in ticket.sealed
    assert OFFICE.holder(ticket) == holder
    with pytest.raises(RemoteError) as caught:
        TicketOffice(SIGNER, b"another secret").holder(ticket)
    assert caught.value.reason == "bad_seal"


def test_a_sealed_holder_cannot_move_to_another_ticket() -> None:
    other = issue(b"x" * 16)
    swapped = Ticket(1, TID, other.day, other.session, other.sealed)
    with pytest.raises(RemoteError) as caught:
        OFFICE.holder(swapped)
    assert caught.value.reason == "bad_seal"


def test_the_ticket_key_is_derived_again_from_the_ticket_id_alone() -> None:
    grant = OFFICE.issue(TID, 1, SESSION.key, HOLDER)
    assert grant.key == TicketOffice(Identity(b"o" * 32), SECRET).key(TID)
    assert grant.key != OFFICE.key(b"x" * 16)
    assert len(grant.key) == 32


@pytest.mark.parametrize(
    ("off_ms", "valid"),
    [
        (-DAY_GRACE_MS - 1, False),
        (-DAY_GRACE_MS, True),
        (0, True),
        (DAY_MS - 1, True),
        (DAY_MS + DAY_GRACE_MS - 1, True),
        (DAY_MS + DAY_GRACE_MS, False),
    ],
)
def test_a_ticket_holds_for_its_day_and_five_minutes_around(off_ms: int, valid: bool) -> None:  # noqa: FBT001
    assert issue(day=20_000).valid_at(20_000 * DAY_MS + off_ms) is valid


def test_a_ticket_of_any_accepted_key_is_taken() -> None:
    data = OFFICE.issue(TID, 1, SESSION.key, HOLDER).ticket
    newer = Identity(b"n" * 32).key
    ticket, signed = open_ticket(data, [newer, SIGNER.key])
    assert ticket.tid == TID
    assert len(signed.sig) == 64
    for keys, reason in (([newer], "bad_signature"), ([], "no_key")):
        with pytest.raises(RemoteError) as caught:
            open_ticket(data, keys)
        assert caught.value.reason == reason


def test_a_ticket_over_its_limit_is_refused_unread() -> None:
    with pytest.raises(RemoteError) as caught:
        open_ticket(bytes(1_025), [SIGNER.key])
    assert caught.value.reason == "too_large"
