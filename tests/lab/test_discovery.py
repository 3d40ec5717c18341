"""Who is there, between network namespaces: how soon a box is seen, and how soon it is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator

import pytest

from farcast.tests.lab.bridge import Switch
from farcast.tests.lab.street import Voice

pytestmark = pytest.mark.lab
Need = Callable[..., str]

FIRST, SECOND, THIRD = "10.99.9.1:7433", "10.99.9.2:7433", "10.99.9.3:7433"
MISSED_S = 6.5
"""Longer than who plays may be silent: three of its intervals."""
BUSY_S = 1.0
"""What a busy machine may add to any time here; the bench tells the times of a quiet one."""
FLOODED_S = 5.0
"""The same while a forger takes a whole core of it."""


@pytest.fixture
def switch(need: Need) -> Generator[Switch]:
    for program in ("ip", "tc", "nft"):
        need(program)
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Switch(3, rate_bps=0) as made:
        yield made


def test_boxes_see_each_other_whoever_comes_first_and_one_that_leaves_is_gone_at_once(switch: Switch) -> None:
    first, second = Voice(switch, 0), Voice(switch, 1)
    first.start()
    came = second.start()
    assert second.until(lambda known: known == [FIRST]) - came < 0.25 + BUSY_S
    assert first.until(lambda known: known == [SECOND]) - came < 0.25 + BUSY_S
    left = second.tell("stop")
    assert first.until(lambda known: known == []) - left < 0.25 + BUSY_S


def test_one_that_dies_while_something_plays_is_gone_within_a_second(switch: Switch) -> None:
    first, second = Voice(switch, 0), Voice(switch, 1)
    first.start()
    second.start()
    first.until(lambda known: known == [SECOND])
    time.sleep(0.5)
    died = second.kill()
    assert first.until(lambda known: known == []) - died < 1.0 + BUSY_S


def test_a_box_on_two_networks_has_neighbours_on_both_but_only_where_it_trusts(switch: Switch) -> None:
    switch.join(0, 2, "10.99.10")
    switch.unplug(2)
    both = Voice(switch, 0)
    wary = Voice(switch, 1, "10.99.11.0/24")
    here, there = Voice(switch, 1), Voice(switch, 2)
    for voice in (both, wary, here, there):
        voice.start()
    both.until(lambda known: {SECOND, "10.99.10.3:7433"} <= set(known))
    assert wary.seen["known"] == []


def test_a_flood_of_forged_presences_grows_nothing_and_hides_nobody(switch: Switch) -> None:
    box, forger, friend = Voice(switch, 0), Voice(switch, 1), Voice(switch, 2)
    box.start()
    forger.tell("rate 10.99.9.2 10000")
    time.sleep(1.0)
    friend.start()
    before = box.until(lambda known: known == [THIRD])
    rss_kib = box.seen["rss_kib"]
    time.sleep(1.5)
    friend.tell("stop")
    assert box.until(lambda known: known == []) > before
    assert box.seen["rejected"]["flood"] > 1_000
    assert box.seen["rejected"]["bad_signature"] < 3_000
    assert box.seen["rss_kib"] - rss_kib < 4_096


@pytest.mark.parametrize(
    ("seed", "seconds"), [(3, MISSED_S), (0, 1.0)], ids=["under its key", "under any key"]
)
def test_whoever_forges_a_neighbours_address_crowds_it_out_neither_before_it_is_known_nor_after(
    switch: Switch, seed: int, seconds: float
) -> None:
    box, forger, friend = Voice(switch, 0), Voice(switch, 1), Voice(switch, 2)
    box.start()
    friend.start()
    box.until(_one)
    friend.until(_one)
    forger.tell(f"spoof 10.99.9.3 10000 {seed}")
    time.sleep(seconds)
    left = friend.tell("stop")
    gone = box.until(lambda known: known == [])
    assert gone - left < 0.25 + FLOODED_S, "it was there until it left, and its last word was heard"
    assert gone >= left
    came = friend.start()
    assert box.until(_one) - came < 0.25 + FLOODED_S
    assert friend.until(_one) - came < 0.25 + FLOODED_S
    assert box.seen["rejected"]["flood"] > 50
    assert box.seen["rejected"]["bad_signature"] < 500 * (seconds + 8)


def _one(known: list[str]) -> bool:
    """Whether one neighbour is known, be it that the flood left only its IPv6 address to be heard."""
    return len(known) == 1
