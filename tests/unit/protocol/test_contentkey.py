from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.contentkey import (
    PROOF_WINDOW_MS,
    KeyAnswer,
    KeyGrant,
    KeyRequest,
    open_key_answer,
    open_key_request,
    open_ticket_proof,
    prove_ticket,
)
from farcast.protocol.errors import RemoteError

BYTES16 = st.binary(min_size=16, max_size=16)
NOW_MS = 1_790_000_000_000


@given(st.binary(max_size=1_024), st.lists(BYTES16, min_size=1, max_size=16))
def test_a_request_reads_as_it_was_written(ticket: bytes, key_ids: list[bytes]) -> None:
    request = KeyRequest(1, ticket, key_ids)
    assert open_key_request(encode(request)) == request


@given(st.lists(st.builds(KeyGrant, BYTES16, BYTES16, st.integers(0, 2**53 - 1)), max_size=16))
def test_an_answer_reads_as_it_was_written(grants: list[KeyGrant]) -> None:
    assert open_key_answer(encode(KeyAnswer(1, grants))) == KeyAnswer(1, grants)


@pytest.mark.parametrize(
    "value",
    [
        [2, b"", [b"k" * 16]],
        [1, b"", []],
        [1, b"", [b"k" * 16] * 17],
        [1, b"", [b"k" * 15]],
        [1, bytes(1_025), [b"k" * 16]],
        [1, b"", [b"k" * 16], 0],
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(value: list[object]) -> None:
    with pytest.raises(RemoteError):
        open_key_request(encode(value))


@given(
    ticket=st.binary(min_size=1, max_size=1_024),
    ticket_key=st.binary(min_size=32, max_size=32),
    key_id=BYTES16,
    late_ms=st.integers(-2 * PROOF_WINDOW_MS, 2 * PROOF_WINDOW_MS),
)
def test_a_proof_holds_for_its_ticket_key_its_key_and_its_minutes(
    ticket: bytes, ticket_key: bytes, key_id: bytes, late_ms: int
) -> None:
    proof = open_ticket_proof(prove_ticket(ticket, ticket_key, key_id, NOW_MS))
    assert (proof.ticket, proof.at_ms) == (ticket, NOW_MS)
    assert proof.holds(ticket_key, key_id, NOW_MS + late_ms) == (abs(late_ms) <= PROOF_WINDOW_MS)
    assert not proof.holds(bytes(32 * [ticket_key[0] ^ 1]), key_id, NOW_MS)
    assert not proof.holds(ticket_key, bytes(16 * [key_id[0] ^ 1]), NOW_MS)
    assert not proof._replace(at_ms=NOW_MS + 1).holds(ticket_key, key_id, NOW_MS)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer abc",
        "Farcast-Ticket YQ.1",
        f"Farcast-Ticket YQ.01.{'A' * 43}",
        f"Farcast-Ticket YR.1.{'A' * 43}",
        f"Farcast-Ticket YQ.1.{'A' * 42}",
        f"Farcast-Ticket YQ==.1.{'A' * 43}",
        f"Farcast-Ticket YQ.1.{'A' * 43}\n",
        f"Farcast-Ticket {'A' * 1_401}.1.{'A' * 43}",
    ],
)
def test_what_is_no_proof_is_refused(value: str) -> None:
    with pytest.raises(RemoteError) as caught:
        open_ticket_proof(value)
    assert caught.value.reason == "malformed"
