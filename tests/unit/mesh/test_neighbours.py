"""Who counts as being on the link."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh import neighbours as module
from farcast.mesh.neighbours import Neighbours
from farcast.protocol.identity import Identity
from farcast.protocol.ports import TierName
from farcast.protocol.presence import NO_WAY, Presence, seal_presence

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
            OWN.key, NET, lambda host: host.startswith(("10.", "fe80:")), lambda r: self.rejected.update([r])
        )

    def hear(self, data: bytes, host: str = HOST, now: float = 0.0) -> bool:
        """Feed one datagram."""
        return self.core.receive(data, host, now)

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


def test_a_flood_of_forgeries_is_mostly_not_looked_at_leaves_nothing_and_hides_nobody() -> None:
    table = Table()
    forger = Identity(b"e" * 32)
    floods = 3_000
    for index in range(floods):
        key = Identity(index.to_bytes(32, "big")).key
        words = Presence(2, NET, key, 1, index, active=True, ask=True, hops=NO_WAY, leaving=False)
        table.hear(seal_presence(words, forger), host="10.6.6.6", now=index / 10_000)
    assert table.keys == []
    assert table.rejected["bad_signature"] <= module.CHECKS_BURST + module.CHECKS_PER_S
    assert table.rejected["bad_signature"] + table.rejected["flood"] == floods
    assert len(table.core._newest) == 0
    assert len(table.core._buckets) == 1
    table.hear(said(), now=0.3)
    assert table.keys == [THEM.key]


def test_forgeries_from_very_many_hosts_keep_no_memory_and_no_neighbour_out() -> None:
    table = Table()
    table.hear(said(at_ms=1), now=0.0)
    noise = seal_presence(
        Presence(2, NET, OWN.key[::-1], 1, 9, active=True, ask=False, hops=NO_WAY, leaving=False), OWN
    )
    for index in range(4_000):
        table.hear(noise, host=f"10.{index % 250}.{index // 250}.7", now=0.1)
    assert len(table.core._buckets) <= module.HOSTS_LIMIT
    assert table.rejected["bad_signature"] <= module.STRANGERS_BURST + module.STRANGERS_PER_S
    table.hear(said(at_ms=2), now=0.2)
    assert table.core.known()[0].heard_at == 0.2
