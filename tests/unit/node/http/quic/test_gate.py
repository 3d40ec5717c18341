from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.http.quic.gate import Admit, Gate, GateLimits, Load, Refuse, Respond, network
from farcast.node.http.quic.ids import INITIAL_BYTES, Ids

FIRST = Ids(1, b"d" * 8, b"s" * 8, initial=True, token=b"")
HERE = ("192.0.2.1", 4000)
NOISE = b"r" * 8
LIMITS = GateLimits(sessions=9, unnamed=2, handshakes=6, neighbours=4, unproven=2)


def _judge(
    gate: Gate,
    ids: Ids,
    load: Load | None = None,
    *,
    address: tuple[str, int] = HERE,
    size: int = 1200,
    now: float = 100.0,
) -> Admit | Respond | Refuse:
    return gate.judge(ids, size, address, load or Load(), noise=NOISE, now=now)


def _gate(secret: bytes = b"k" * 32) -> Gate:
    return Gate(secret, LIMITS)


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


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Load(sessions=9), "too_many_connections"),
        (Load(neighbours=4), "too_many_handshakes"),
    ],
)
def test_one_too_many_is_refused_by_its_reason(load: Load, reason: str) -> None:
    assert _judge(_gate(), FIRST, load) == Refuse(reason)


def test_clients_without_a_connection_id_have_a_limit_of_their_own() -> None:
    nameless = FIRST._replace(source=b"")
    assert _judge(_gate(), nameless, Load(unnamed=1)) == Admit(b"d" * 8, b"")
    assert _judge(_gate(), nameless, Load(unnamed=2)) == Refuse("too_many_browsers")
    assert _judge(_gate(), FIRST, Load(unnamed=2)) == Admit(b"d" * 8, b"")


def _retry(gate: Gate) -> Ids:
    verdict = _judge(gate, FIRST, Load(handshakes=2))
    assert isinstance(verdict, Respond)
    packet = verdict.packet
    assert (packet[0] & 0xF0) == 0xF0
    assert packet[5:23] == b"\x08" + b"s" * 8 + b"\x08" + NOISE
    return FIRST._replace(destination=NOISE, token=packet[23:-16])


def test_a_client_that_returns_its_token_is_admitted_even_in_a_flood() -> None:
    gate = _gate()
    assert _judge(gate, _retry(gate), Load(handshakes=2)) == Admit(b"d" * 8, NOISE)


def test_a_token_counts_for_one_address_one_id_and_some_seconds() -> None:
    gate = _gate()
    again = _retry(gate)
    bad = Refuse("bad_retry_token")
    assert _judge(gate, again, address=("192.0.2.2", 4000)) == bad
    assert _judge(gate, again, address=("192.0.2.1", 4001)) == bad
    assert _judge(gate, again._replace(destination=b"x" * 8)) == bad
    assert _judge(gate, again, now=111.0) == bad
    assert _judge(gate, again._replace(token=b"t")) == bad
    assert _judge(_gate(b"other"), again) == bad


def test_another_version_is_told_ours() -> None:
    verdict = _judge(_gate(), FIRST._replace(version=7, initial=False))
    assert isinstance(verdict, Respond)
    assert verdict.packet[1:] == b"\0\0\0\0\x08" + b"s" * 8 + b"\x08" + b"d" * 8 + b"\0\0\0\x01"


ADDRESSES = st.tuples(st.ip_addresses(v=4).map(str), st.integers(min_value=1, max_value=65_535))


@given(
    st.builds(
        Ids,
        st.sampled_from([0, 1, 2, 0xFFFFFFFF]),
        st.binary(max_size=20),
        st.binary(max_size=20),
        st.booleans(),
        st.binary(max_size=80),
    ),
    st.integers(min_value=9, max_value=1500),
    ADDRESSES,
    st.builds(Load, *[st.integers(min_value=0, max_value=10)] * 4),
)
def test_whatever_comes_the_gate_answers_within_its_limits(
    ids: Ids, size: int, address: tuple[str, int], load: Load
) -> None:
    verdict = _judge(_gate(), ids, load, address=address, size=size)
    if isinstance(verdict, Admit):
        assert ids.initial
        assert ids.version == 1
        assert size >= INITIAL_BYTES
        assert load.sessions < LIMITS.sessions
        assert load.handshakes < LIMITS.unproven
        assert load.neighbours < LIMITS.neighbours
        assert ids.source or load.unnamed < LIMITS.unnamed
        assert not ids.token  # no made-up token is ever right
    elif isinstance(verdict, Respond):
        assert len(verdict.packet) <= 3 * size  # RFC 9000 section 8.1
        assert size >= INITIAL_BYTES
    else:
        assert verdict.reason


@given(st.ip_addresses(v=6), st.ip_addresses(v=4))
def test_a_network_is_an_ipv4_address_or_half_an_ipv6_one(wide: Any, narrow: Any) -> None:  # noqa: ANN401
    assert network(str(narrow)) == network(f"::ffff:{narrow}") == str(narrow)
    if wide.ipv4_mapped is None:
        neighbour = type(wide)(int(wide) ^ 1)
        stranger = type(wide)(int(wide) ^ 1 << 64)
        assert network(str(wide)) == network(f"{wide}%eth0") == network(str(neighbour))
        assert network(str(wide)) != network(str(stranger))
