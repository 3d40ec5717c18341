from __future__ import annotations

from math import inf

from farcast.node.ladder.supply import Arrival
from farcast.node.playback.trail import FRESH_S, STEPS_KEPT, Step, Trail
from farcast.protocol.ports import TierName


def test_a_segment_is_named_by_its_slowest_block_and_its_tier() -> None:
    trail = Trail()
    arrivals = [Arrival(TierName.CDN, 12, 100.0), Arrival(TierName.RELAY, 38, 100.1), None]
    trail.add("video", 4_000, arrivals, 101.0)
    assert trail.steps() == [Step(4_000, "relay", 38)]
    assert trail.blocks == 3


def test_what_was_here_for_long_came_from_this_box_but_what_was_pushed_by_its_carrier() -> None:
    trail = Trail()
    trail.add("video", 0, [Arrival(TierName.CDN, 12, 100.0)], 100.0 + FRESH_S + 1)
    trail.add("video", 2_000, [None], 140.0)
    trail.add("video", 4_000, [Arrival(TierName.SATELLITE, 0, inf)], 9_999.0)
    assert [step.tier for step in trail.steps()] == ["here", "here", "satellite"]


def test_the_last_sixty_are_kept_of_the_picture_and_of_the_sound_only_without_one() -> None:
    trail = Trail()
    for number in range(STEPS_KEPT + 20):
        trail.add("audio", number * 2_000, [None], 0.0)
    assert [step.start_ms for step in trail.steps()] == [n * 2_000 for n in range(20, STEPS_KEPT + 20)]
    trail.add("video", 6_000, [None], 0.0)
    assert trail.steps() == [Step(6_000, "here", 0)]


def test_a_player_waits_from_its_first_question_until_one_of_that_track_came() -> None:
    trail = Trail()
    assert trail.waits_s(100.0) == 0
    trail.asked("video", 100.0)
    trail.asked("audio", 101.0)
    trail.asked("video", 104.0)  # asked again: it has waited all the while
    assert trail.waits_s(105.0) == 5
    trail.came("video")
    assert trail.waits_s(106.0) == 5, "the sound is not here"
    trail.came("audio")
    assert trail.waits_s(999.0) == 0
