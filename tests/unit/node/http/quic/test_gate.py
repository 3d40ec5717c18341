from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.quic.gate import Admit, Gate, Refuse, Respond
from farcast.node.http.quic.ids import Ids, read_ids

FIRST = Ids(1, b"d" * 8, b"s" * 8, initial=True, token=b"")
HERE = ("192.0.2.1", 4000)
NOISE = b"r" * 8


def _judge(
    gate: Gate,
    ids: Ids,
    *,
    address: tuple[str, int] = HERE,
    size: int = 1200,
    sessions: int = 0,
    unproven: int = 0,
    now: float = 100.0,
) -> Admit | Respond | Refuse:
    return gate.judge(ids, size, address, sessions=sessions, unproven=unproven, noise=NOISE, now=now)


def _gate() -> Gate:
    return Gate(b"k" * 32, sessions=3, unproven=2)


def test_the_first_datagram_of_a_client_is_admitted() -> None:
    assert _judge(_gate(), FIRST) == Admit(b"d" * 8, b"")


@pytest.mark.parametrize(
    ("ids", "size"),
    [
        (FIRST, 1199),
        (FIRST._replace(version=0), 1200),
        (FIRST._replace(initial=False), 1200),
        (FIRST._replace(destination=b"d" * 7), 1200),
    ],
)
def test_noise_is_dropped_and_counted(ids: Ids, size: int) -> None:
    assert _judge(_gate(), ids, size=size) == Refuse("stray_datagram")


def test_a_client_without_connection_id_and_one_too_many_are_counted() -> None:
    assert _judge(_gate(), FIRST._replace(source=b"")) == Refuse("empty_connection_id")
    assert _judge(_gate(), FIRST, sessions=3) == Refuse("too_many_connections")


def _retry(gate: Gate) -> Ids:
    verdict = _judge(gate, FIRST, unproven=2)
    assert isinstance(verdict, Respond)
    packet = verdict.packet
    assert (packet[0] & 0xF0) == 0xF0
    assert packet[5:23] == b"\x08" + b"s" * 8 + b"\x08" + NOISE
    return FIRST._replace(destination=NOISE, token=packet[23:-16])


def test_a_client_that_returns_its_token_is_admitted_even_in_a_flood() -> None:
    gate = _gate()
    assert _judge(gate, _retry(gate), unproven=2) == Admit(b"d" * 8, NOISE)


def test_a_token_counts_for_one_address_one_id_and_some_seconds() -> None:
    gate = _gate()
    again = _retry(gate)
    bad = Refuse("bad_retry_token")
    assert _judge(gate, again, address=("192.0.2.2", 4000)) == bad
    assert _judge(gate, again, address=("192.0.2.1", 4001)) == bad
    assert _judge(gate, again._replace(destination=b"x" * 8)) == bad
    assert _judge(gate, again, now=111.0) == bad
    assert _judge(gate, again._replace(token=b"t")) == bad
    assert _judge(Gate(b"other", sessions=3, unproven=2), again) == bad


def test_another_version_is_told_ours() -> None:
    verdict = _judge(_gate(), FIRST._replace(version=7, initial=False))
    assert isinstance(verdict, Respond)
    assert verdict.packet[1:] == b"\0\0\0\0\x08" + b"s" * 8 + b"\x08" + b"d" * 8 + b"\0\0\0\x01"


def test_ids_are_read_from_long_and_short_headers() -> None:
    long = b"\xc3\x00\x00\x00\x01\x03abc\x02xy\x41\x00" + b"t" * 256 + b"rest"
    assert read_ids(long) == Ids(1, b"abc", b"xy", initial=True, token=b"t" * 256)
    assert read_ids(b"\xe3" + long[1:]) == Ids(1, b"abc", b"xy", initial=False, token=b"")
    assert read_ids(b"\x40" + b"12345678" + b"more") == Ids(0, b"12345678", b"", initial=False, token=b"")


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\xc0\x00\x00\x00\x01", b"\xc0\x00\x00\x00\x02"]))
def test_any_datagram_has_ids_or_is_none(data: bytes, prefix: bytes) -> None:
    ids = read_ids(prefix + data)
    assert ids is None or ids.destination in prefix + data
