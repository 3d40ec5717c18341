from __future__ import annotations

from pathlib import Path

import pytest

from farcast.protocol.enrol import CheckAnswer
from farcast.relay import check as module
from farcast.relay.check import (
    Checked,
    Door,
    Finding,
    look_at_clock,
    look_at_disk,
    look_at_nat,
    look_at_reach,
    look_at_speed,
)

REACHED = CheckAnswer(1, "11.22.33.44", "", "", 0, 0, b"")
CLOSED = CheckAnswer(1, "11.22.33.44", "TCP: Connection refused", "UDP: no answer within 4 s", 0, 0, b"")
GOOD, FAIR = Finding("disk", "good", "room"), Finding("speed", "fair", "slow", "move")
BAD, UNTRIED = Finding("clock", "bad", "wrong", "set it"), Finding("reachable", "untried", "nobody", "ask")


def door(sentence: str = "", trouble: str = "") -> Door:
    return Door(7_433, sentence, trouble)


@pytest.mark.parametrize(
    ("findings", "ready", "verdict"),
    [
        ([GOOD, GOOD], True, "Ready to join"),
        ([GOOD, FAIR], True, "Ready to join, but speed: slow; move"),
        ([FAIR, UNTRIED, GOOD], True, "Ready to join, but reachable: nobody; ask"),
        ([UNTRIED, FAIR, BAD], False, "Not ready: clock: wrong; set it"),
    ],
)
def test_the_worst_finding_is_the_verdict(findings: list[Finding], ready: bool, verdict: str) -> None:  # noqa: FBT001
    found = Checked(findings, [])
    assert (found.ready, found.verdict) == (ready, verdict)


def test_the_disk_is_looked_at_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISK_TEST_BYTES", 4 << 20)
    room, speed = look_at_disk(tmp_path / "not" / "there", 10_000_000)
    assert (room.name, room.mark, speed.name) == ("disk", "good", "disk speed")
    assert list(tmp_path.iterdir()) == []
    assert look_at_disk(tmp_path, 2**53)[0].mark == "fair"


def test_reach_is_judged_by_both_protocols() -> None:
    assert look_at_reach(REACHED)[0].mark == "good"
    half = look_at_reach(CheckAnswer(1, "11.22.33.44", "", "UDP: no answer", 0, 0, b""))[0]
    assert (half.mark, half.mend) == ("fair", "open UDP too")
    closed = look_at_reach(CLOSED)[0]
    assert closed.mark == "bad"
    assert "forward TCP and UDP" in closed.mend


@pytest.mark.parametrize(
    ("answer", "own", "given", "mark", "words"),
    [
        (REACHED, ["11.22.33.44"], door(), "good", "this box's own"),
        (REACHED, ["192.168.1.9"], door(), "good", "forwards the port to this box"),
        (
            CLOSED,
            ["192.168.1.9"],
            door("the router says no"),
            "fair",
            "forwards nothing here; the router says",
        ),
        (CLOSED, ["100.64.1.2"], door(), "bad", "carrier-grade NAT"),
        (REACHED, ["100.64.1.2"], door(), "fair", "carrier-grade NAT"),
        (CLOSED, ["192.168.1.9"], door("x", "its outside address is the carrier's"), "bad", "the carrier's"),
    ],
)
def test_what_stands_between_is_named(
    answer: CheckAnswer, own: list[str], given: Door, mark: str, words: str
) -> None:
    found = look_at_nat(answer, own, given)
    assert (found.name, found.mark) == ("address", mark)
    assert words in found.text


@pytest.mark.parametrize(("up", "mark"), [(50e6, "good"), (5e6, "fair"), (1e6, "bad")])
def test_speed_is_judged_by_the_way_up(up: float, mark: str) -> None:
    assert look_at_speed(up, 1e9).mark == mark


@pytest.mark.parametrize(("offset", "mark"), [(0.2, "good"), (-30.0, "fair"), (600.0, "bad")])
def test_a_wrong_clock_is_bad(offset: float, mark: str) -> None:
    assert look_at_clock(offset).mark == mark
    assert "ahead of" in look_at_clock(600.0).text
    assert "behind" in look_at_clock(-600.0).text
