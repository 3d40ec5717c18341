"""Who counts as being on the link."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh import neighbours as module
from farcast.mesh.neighbours import Neighbours
from farcast.mesh.scrutiny import GROUP, HOSTS_LIMIT, KEY_BURST, KEY_PER_S
from farcast.protocol.codec import encode
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.ports import TierName
from farcast.protocol.presence import NO_WAY, Presence, seal_presence, tell_presence

OWN = Identity(b"o" * 32)
THEM = Identity(b"t" * 32)
NET = b"n" * 8
HOST = "10.0.0.2"


def said(
    identity: Identity = THEM,
    *,
    at_ms: int = 1,
    net: bytes = NET,
    active: bool = True,
    ask: bool = False,
    hops: int = NO_WAY,
    leaving: bool = False,
) -> bytes:
    presence = Presence(
        2, net, identity.key, 7_433, at_ms, active=active, ask=ask, hops=hops, leaving=leaving
    )
    return seal_presence(presence, identity)


class Table:
    """A table with its refusals counted; only 10.0.0.0/8 and fe80:: are on the link."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.core = Neighbours(
            OWN, NET, lambda host: host.startswith(("10.", "fe80:")), lambda r: self.rejected.update([r])
        )

    def hear(self, data: bytes, host: str = HOST, now: float = 0.0, *, alone: bool = False) -> bool:
        """Feed one datagram; True where it asks."""
        return self.core.receive(data, host, now, alone=alone) is not None

    @property
    def keys(self) -> list[bytes]:
        """Who is there."""
        return [neighbour.key for neighbour in self.core.known()]


def test_a_presence_makes_a_neighbour_that_can_be_dialled() -> None:
    table = Table()
    assert not table.hear(said())
    [neighbour] = table.core.known()
    source = neighbour.source
    assert (source.tier, source.name, source.address, source.key) == (
        TierName.MESH,
        THEM.peer_id,
        "10.0.0.2:7433",
        THEM.key,
    )


@pytest.mark.parametrize(("active", "seconds"), [(True, 6.0), (False, 45.0)])
def test_silence_of_three_intervals_ends_a_neighbour(active: bool, seconds: float) -> None:  # noqa: FBT001
    table = Table()
    table.hear(said(active=active))
    assert table.core.wake_at == seconds
    assert table.core.tick(seconds - 0.01) == []
    assert table.core.tick(seconds) == [THEM.key]
    assert table.keys == []
    assert table.core.wake_at is None


def test_a_later_presence_keeps_a_neighbour_and_a_leaving_one_ends_it_at_once() -> None:
    table = Table()
    table.hear(said(at_ms=1), now=0.0)
    table.hear(said(at_ms=2), now=5.0)
    assert table.core.tick(7.0) == []
    table.hear(said(at_ms=3, leaving=True), now=7.0)
    assert table.keys == []


def test_a_replayed_presence_neither_revives_nor_prolongs() -> None:
    table = Table()
    first, second = said(at_ms=1), said(at_ms=2)
    table.hear(first)
    table.hear(second)
    table.hear(second, now=5.9)
    table.hear(first, now=5.9)
    assert table.rejected == {"replay": 1}
    table.core.tick(6.0)
    table.hear(second, now=6.1)
    table.hear(first, now=6.1)
    assert table.keys == []


def test_own_foreign_off_link_and_forged_presences_make_no_neighbour() -> None:
    table = Table()
    table.hear(said(OWN))
    table.hear(said(net=b"x" * 8))
    table.hear(said(), host="8.8.8.8")
    forged = Presence(2, NET, THEM.key, 1, 9, active=True, ask=False, hops=0, leaving=False)
    table.hear(seal_presence(forged, OWN))
    table.hear(b"noise")
    assert table.keys == []
    assert table.rejected == {"foreign_net": 1, "off_link": 1, "bad_signature": 1, "malformed": 1}


def test_a_forged_goodbye_changes_nothing() -> None:
    table = Table()
    table.hear(said())
    forged = Presence(2, NET, THEM.key, 7_433, 9, active=True, ask=False, hops=0, leaving=True)
    table.hear(seal_presence(forged, Identity(b"e" * 32)))
    assert table.keys == [THEM.key]


def test_whoever_asks_is_to_be_answered_once() -> None:
    table = Table()
    data = said(ask=True)
    assert table.hear(data)
    assert not table.hear(data)
    assert not table.hear(said(at_ms=2))


def test_one_host_cannot_fill_the_table_and_the_table_is_bounded() -> None:
    table = Table()
    boxes = [Identity(index.to_bytes(32, "big")) for index in range(1, module.NEIGHBOURS_LIMIT + 40)]
    for box in boxes[:20]:
        table.hear(said(box), host="10.9.9.9")
    assert len(table.keys) == module.PER_HOST_LIMIT
    for index, box in enumerate(boxes[20:]):
        table.hear(said(box), host=f"10.1.{index // 200}.{index % 200}")
    assert len(table.keys) == module.NEIGHBOURS_LIMIT
    assert table.rejected["crowded"] == 20 - module.PER_HOST_LIMIT
    assert table.rejected["full"] > 0


def test_those_nearest_to_an_uplink_come_first() -> None:
    table = Table()
    boxes = [Identity(bytes([seed]) * 32) for seed in range(1, 5)]
    for seed, box in enumerate(boxes):
        table.hear(said(box, hops=seed % 2))
    assert [neighbour.hops for neighbour in table.core.known()] == [0, 0, 1, 1]
    assert [neighbour.uplink for neighbour in table.core.known()] == [True, True, False, False]


def test_heard_by_both_ip_versions_the_ipv4_address_is_kept() -> None:
    table = Table()
    data = said()
    table.hear(data, host="fe80::1%eth0")
    assert table.core.known()[0].source.address == "[fe80::1%eth0]:7433"
    table.hear(data, host=HOST)
    assert table.core.known()[0].source.address == "10.0.0.2:7433"


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 20), st.booleans(), st.floats(0, 3, width=16)),
        max_size=30,
    )
)
def test_nobody_is_known_past_three_intervals_of_silence(
    events: list[tuple[int, int, bool, float]],
) -> None:
    table, now, fresh = Table(), 0.0, dict[bytes, float]()
    newest: dict[bytes, int] = {}
    for seed, at_ms, leaving, wait in events:
        now += wait
        box = Identity(bytes([seed]) * 32)
        table.hear(said(box, at_ms=at_ms, leaving=leaving), now=now)
        if at_ms > newest.get(box.key, -1):
            newest[box.key] = at_ms
            fresh[box.key] = float("-inf") if leaving else now
        table.core.tick(now)
        assert set(table.keys) == {key for key, at in fresh.items() if at + 6.0 > now}


@given(st.binary(max_size=170))
def test_arbitrary_datagrams_are_refused_and_counted(data: bytes) -> None:
    table = Table()
    assert not table.hear(data)
    assert table.rejected.total() == 1


def test_a_neighbour_that_leaves_three_asks_unanswered_is_gone_and_one_that_answers_stays() -> None:
    table = Table()
    other = Identity(b"u" * 32)
    table.hear(said(at_ms=1), now=0.0)
    table.hear(said(other, at_ms=1), now=0.0)
    assert table.core.due(0.1) == []
    for turn in range(1, 4):
        now = 0.2 * turn
        assert {one.key for one in table.core.due(now)} == {THEM.key, other.key}
        assert table.core.tick(now) == []
        table.hear(said(other, at_ms=1 + turn), now=now)
    assert table.core.tick(0.79) == []
    assert table.core.tick(0.81) == [THEM.key]
    assert table.keys == [other.key]


def test_very_many_neighbours_are_asked_a_hundred_times_a_second_at_most() -> None:
    table = Table()
    boxes = [Identity(index.to_bytes(32, "big")) for index in range(1, 201)]
    for index, box in enumerate(boxes):
        table.hear(said(box), host=f"10.2.{index // 200}.{index % 200}")
    asked = 0
    for step in range(100):
        asked += len(table.core.due(step / 100))
    assert asked <= module.PROBES_PER_S + len(boxes)


def forged(identity: Identity | SimpleNamespace, at_ms: int, rng: Random) -> bytes:
    """Return words under somebody's key that somebody else made up."""
    words = Presence(2, NET, identity.key, 7_433, at_ms, active=True, ask=True, hops=0, leaving=False)
    return encode(Signed(encode(words), rng.randbytes(64)))


RATE = 10_000
"""Forged presences a second."""


def test_a_flood_of_forgeries_is_mostly_not_looked_at_leaves_nothing_and_hides_nobody() -> None:
    table, rng = Table(), Random(1)
    floods = 3_000
    for index in range(floods):
        stranger = SimpleNamespace(key=rng.randbytes(32))
        table.hear(forged(stranger, index, rng), host="10.6.6.6", now=index / RATE)
    assert table.keys == []
    bound = GROUP.host[1] + GROUP.lot[1] + (GROUP.host[0] + GROUP.lot[0]) * floods / RATE
    assert table.rejected["bad_signature"] <= bound
    assert table.rejected["bad_signature"] + table.rejected["flood"] == floods == table.core.forgeries
    assert len(table.core._newest) == 0
    assert table.core._scrutiny.remembered == 1
    table.hear(said(), now=0.3)
    assert table.keys == [THEM.key]


def test_forgeries_from_very_many_hosts_keep_no_memory_and_no_neighbour_out() -> None:
    table, rng = Table(), Random(2)
    table.hear(said(at_ms=1), now=0.0)
    for index in range(4_000):
        stranger = SimpleNamespace(key=rng.randbytes(32))
        table.hear(forged(stranger, 9, rng), host=f"10.{index % 250}.{index // 250}.7", now=0.1)
    assert table.core._scrutiny.remembered <= HOSTS_LIMIT + 1
    assert table.rejected["bad_signature"] <= GROUP.hosts[1] + GROUP.lot[1] + 1
    table.hear(said(at_ms=2), now=0.2)
    assert table.core.known()[0].heard_at == 0.2


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_whoever_forges_a_neighbours_own_address_and_key_does_not_crowd_it_out(
    active: bool,  # noqa: FBT001
    alone: bool,  # noqa: FBT001
) -> None:
    """Its presences are lost among ten thousand others a second; it is asked, and its answers are heard."""
    table, rng = Table(), Random(3)
    pair = THEM.pair(OWN.key)
    table.hear(said(at_ms=1, active=active), now=0.0)
    noise = [forged(THEM, 1_000_000 + index, rng) for index in range(500)]
    seconds, asks, step = (2.0, 0, 20) if active else (60.0, 0, 2_000)
    for turn in range(int(seconds * RATE / step)):
        now = turn * step / RATE
        for datagram in noise[: min(step, len(noise))]:
            table.hear(datagram, now=now, alone=alone)
        for one in table.core.due(now, active=active):
            asks += 1
            answer = tell_presence(said(at_ms=2 + turn, active=active), pair)
            table.hear(answer, one.host, now, alone=True)
        assert table.core.tick(now) == []
    assert table.keys == [THEM.key]
    assert asks <= seconds / (0.2 if active else 2.0) + 1
    bound = KEY_BURST + KEY_PER_S * seconds
    assert table.rejected["bad_signature"] <= bound
    table.hear(tell_presence(said(at_ms=900_000, leaving=True), pair), now=seconds, alone=True)
    assert table.keys == [], "its last word is heard too"


def test_a_mark_that_another_made_is_worth_nothing() -> None:
    table, rng = Table(), Random(4)
    table.hear(said(at_ms=1))
    eve = Identity(b"e" * 32)
    for pair in (eve.pair(OWN.key), eve.pair(THEM.key), bytes(32)):
        for index in range(100):
            table.hear(tell_presence(forged(THEM, 10 + index, rng), pair), alone=True)
    assert table.rejected["bad_signature"] <= KEY_BURST
    table.hear(tell_presence(said(at_ms=2), THEM.pair(OWN.key)), now=0.1, alone=True)
    assert table.core.known()[0].heard_at == 0.1


@pytest.mark.parametrize("spoofed", [HOST, ""], ids=["its own address", "any address"])
def test_a_newcomer_among_forgeries_is_found_by_saying_itself_again(spoofed: str) -> None:
    """Of 60 newcomers that repeat one ask for a quarter of a second at least 19 in 20 are found in it."""
    rng, found = Random(5), 0
    table = Table()
    noise = [forged(SimpleNamespace(key=rng.randbytes(32)), index, rng) for index in range(2_000)]
    step_s = 0.004
    now = 0.0
    for trial in range(60):
        newcomer = Identity(rng.randbytes(32))
        ask = said(newcomer, ask=True)
        for _ in range(int(0.25 / step_s)):
            for _ in range(int(RATE * step_s)):
                host = spoofed or f"10.0.{rng.randrange(250)}.{rng.randrange(250)}"
                table.hear(rng.choice(noise), host, now + rng.random() * step_s)
            now += step_s
            if table.hear(ask, now=now):
                found += trial > 0  # before the first the bursts are unspent
                break
        else:
            assert newcomer.key not in table.keys
        now += step_s
        table.hear(said(newcomer, at_ms=2, leaving=True), host="10.9.9.9", now=now)
        for key in table.keys:
            table.core._drop(key)
    assert found >= 59 * 0.95


def test_an_echo_of_a_presence_does_not_move_a_neighbour() -> None:
    table = Table()
    data = said()
    table.hear(data, host="fe80::1%eth0")
    table.hear(data, host="10.6.6.6", now=0.5)
    assert table.core.known()[0].source.address == "[fe80::1%eth0]:7433"


def test_an_idle_box_asks_whose_presence_is_overdue_and_three_missed_intervals_still_end_it() -> None:
    table = Table()
    table.hear(said(active=False))
    assert table.core.due(18.7, active=False) == []
    assert [one.key for one in table.core.due(18.8, active=False)] == [THEM.key]
    assert table.core.due(20.0, active=False) == []
    for turn in range(12):
        assert len(table.core.due(21.0 + 2 * turn, active=False)) == 1
    assert table.core.tick(44.9) == []
    assert table.core.tick(45.0) == [THEM.key]


def test_who_is_here_is_remembered_however_many_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_KEYS", 8)
    table = Table()
    old = said(at_ms=1, active=False)
    table.hear(old)
    for seed in range(1, 30):
        passer = Identity(seed.to_bytes(32, "big"))
        table.hear(said(passer, at_ms=1), host=f"10.3.0.{seed}", now=0.1)
        table.hear(said(passer, at_ms=2, leaving=True), host=f"10.3.0.{seed}", now=0.1)
    assert len(table.core._newest) == 8
    table.hear(old, now=0.2)
    assert table.rejected.total() == 0, "it is known, and no replay of a stranger"
