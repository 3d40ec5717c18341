from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.http.governor import Governor, Lan, Rules, State
from farcast.node.http.meter import Meter
from farcast.node.links import Links
from farcast.protocol.errors import RefusedError

FAR, FARTHER = "203.0.113.7", "203.0.113.8"
MIB = 1 << 20


def test_nothing_limited_asks_for_nothing() -> None:
    governor = Governor()
    assert not governor.wan.guarded
    assert not governor.metered
    assert governor.connect(FAR) is None
    assert governor.request(FAR, 0.0, transfer=True) is None
    assert governor.owe(MIB, 0.0) == 0
    assert governor.clients == 0


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.9", True), ("10.1.2.3", True),
        ("192.168.1.9", True), ("172.20.0.1", True), ("fe80::1%eth0", True), ("fd00::1", True),
        ("203.0.113.7", False), ("100.64.0.1", False), ("172.32.0.1", False), ("2001:db8::1", False),
        ("::ffff:8.8.8.8", False), ("", False),
    ],
)  # fmt: skip
def test_the_lan_is_loopback_private_and_link_local(peer: str, local: bool) -> None:  # noqa: FBT001
    assert Lan()(peer) == local


def test_the_lan_may_be_other_networks() -> None:
    lan = Lan(["203.0.113.0/24"])
    assert lan(FAR)
    assert not lan("127.0.0.1")
    governor = Governor(local=lan)
    assert governor.flow(FAR) is governor.lan


@given(
    st.integers(1_000, 10 * MIB),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, MIB)), max_size=40),
)
def test_never_more_is_sent_than_the_rate_and_one_burst(rate: int, asked: list[tuple[float, int]]) -> None:
    governor = Governor(Rules(upload_bytes_s=rate))
    now, sends = 0.0, list[tuple[float, int]]()
    for pause_s, size in asked:
        now += pause_s
        sends.append((now + governor.owe(size, now), size))
    for at, _ in sends:
        sent = sum(size for when, size in sends if when <= at)
        assert sent <= rate * (1 + at) * (1 + 1e-9) + 1


def test_a_quantum_is_a_twentieth_of_a_second_within_bounds() -> None:
    governor = Governor()
    for rate, quantum in ((1_000, 64 << 10), (10_000_000, 500_000), (10**9, MIB)):
        governor.set_rules(Rules(upload_bytes_s=rate), 0.0)
        assert governor.quantum_bytes == quantum


def test_new_transfers_are_refused_while_the_rate_is_long_spoken_for() -> None:
    governor = Governor(Rules(upload_bytes_s=1_000))
    assert governor.wan.guarded
    governor.owe(9_000, 0.0)
    assert governor.request(FAR, 0.0, transfer=True) is None
    governor.owe(9_000, 0.0)
    refusal = governor.request(FAR, 0.0, transfer=True)
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (429, "upload_rate", 17.0)
    assert governor.request(FAR, 0.0, transfer=False) is None
    assert governor.request("10.0.0.1", 0.0, transfer=True) is None
    assert governor.request(FAR, 8.0, transfer=True) is None


def test_debt_is_paid_before_anybody_else_sends() -> None:
    governor = Governor(Rules(upload_bytes_s=MIB))
    assert governor.owe(3 * MIB, 0.0) == pytest.approx(2.0)
    assert governor.owe(MIB, 0.0) == pytest.approx(3.0)
    governor.give_back(MIB)
    assert governor.owe(0, 1.0) == pytest.approx(1.0)


def test_a_client_s_requests_are_a_bucket_of_its_own() -> None:
    governor = Governor(Rules(client_requests_s=2, client_burst=3))
    assert [governor.request(FAR, 0.0, transfer=False) for _ in range(3)] == [None] * 3
    refusal = governor.request(FAR, 0.0, transfer=False)
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (429, "client_requests", 0.5)
    assert governor.request(FARTHER, 0.0, transfer=False) is None
    assert governor.request("192.168.1.1", 0.0, transfer=False) is None
    assert governor.request(FAR, 0.5, transfer=False) is None


def test_one_ipv6_network_is_one_client() -> None:
    governor = Governor(Rules(client_connections=1))
    assert governor.connect("2001:db8:1:2::1") is None
    refusal = governor.connect("2001:db8:1:2:ffff::9")
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (429, "client_connections")
    assert governor.connect("2001:db8:1:3::1") is None
    governor.disconnect("2001:db8:1:2::1")
    assert governor.connect("2001:db8:1:2::9") is None


def test_all_connections_together_have_a_limit_and_leaving_makes_room() -> None:
    governor = Governor(Rules(connections=2))
    assert [governor.connect(FAR) for _ in range(2)] == [None, None]
    refusal = governor.connect(FARTHER)
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (503, "too_many_connections")
    governor.disconnect(FAR)
    assert governor.connect(FARTHER) is None


def test_a_pause_refuses_new_transfers_of_everybody_and_hibernation_spares_the_lan() -> None:
    governor = Governor()
    governor.set_state(State.PAUSED, 30)
    refusal = governor.request("127.0.0.1", 0.0, transfer=True)
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (503, "paused", 30)
    assert governor.request(FAR, 0.0, transfer=False) is None
    governor.set_state(State.HIBERNATING, 3_600)
    assert governor.request("127.0.0.1", 0.0, transfer=True) is None
    assert governor.request(FAR, 0.0, transfer=True) is not None
    governor.set_state(State.SERVING)
    assert not governor.wan.guarded


def test_new_rules_hold_at_once_for_clients_already_known() -> None:
    governor = Governor(Rules(client_requests_s=1, client_burst=1))
    governor.request(FAR, 0.0, transfer=False)
    assert governor.request(FAR, 0.0, transfer=False) is not None
    governor.set_rules(Rules(client_requests_s=100, client_burst=100), 0.0)
    assert governor.request(FAR, 0.0, transfer=False) is None
    governor.set_rules(Rules(), 0.0)
    assert not governor.wan.guarded


def test_the_shares_of_all_processes_keep_the_rules() -> None:
    rules = Rules(1_000, 100, 10, 8.0, 40)
    assert rules.share(4) == Rules(250, 25, 2, 2.0, 10)
    assert rules.share(1) == rules
    assert Rules().share(8) == Rules(client_burst=6)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=200))
def test_the_table_of_clients_is_bounded_and_keeps_who_is_connected(steps: list[tuple[int, bool]]) -> None:
    governor = Governor(Rules(client_connections=1, client_requests_s=1), clients=8)
    connected: list[str] = []
    for number, connect in steps:
        peer = f"198.51.100.{number}"
        if connect and peer not in connected and len(connected) < 7:
            assert governor.connect(peer) is None
            connected.append(peer)
        else:
            governor.request(peer, 0.0, transfer=True)
        assert governor.clients <= 8
    for peer in connected:
        assert governor.connect(peer) is not None


async def test_the_meter_waits_and_counts_each_side() -> None:
    governor = Governor(Rules(upload_bytes_s=MIB))
    meter = Meter(governor)
    started = asyncio.get_running_loop().time()
    await meter.spend(FAR, MIB)
    await meter.spend(FAR, MIB // 10)
    assert asyncio.get_running_loop().time() - started >= 0.09
    await meter.spend("127.0.0.1", 100 * MIB)
    assert (governor.wan.bytes, governor.lan.bytes) == (MIB + MIB // 10, 100 * MIB)


def test_the_meter_refuses_transfers_of_a_paused_box_and_nothing_else() -> None:
    governor = Governor()
    meter = Meter(governor)
    governor.set_state(State.PAUSED, 5)
    meter.admit(FAR, "/v1/pulses")
    for path in ("/ipfs/x", "/watch/film/master.m3u8"):
        with pytest.raises(RefusedError) as caught:
            meter.admit(FAR, path)
        assert (caught.value.status, caught.value.retry_after_s) == (503, 5)


def test_everybody_is_looked_at_unless_somebody_says_who_is() -> None:
    governor = Governor()
    assert governor.serves(FAR)
    governor.served = Links(["192.0.2.1"])
    assert not governor.serves(FAR)
    assert governor.serves("127.0.0.1")
