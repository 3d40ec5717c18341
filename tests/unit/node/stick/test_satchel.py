"""Pulses on a stick are written once, leave by acks, and acks stay until their maker has seen them."""

from __future__ import annotations

from pathlib import Path

import pytest

from farcast.node.stick import satchel as module
from farcast.node.stick.satchel import Satchel
from farcast.origin.pulses.intake import Intake
from farcast.protocol.batch import PulsePost
from farcast.protocol.codec import encode
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import read_pulse
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.node.stick.boxes import SIGNED_MS, House, houses
from farcast.tests.unit.origin.mint import Viewer, open_intake, read

FILM = b"f" * 32


def watched(house: House, viewer: Viewer, minutes: int, *, own: bool = True) -> None:
    """Spool what a viewer watched."""
    pulses = viewer.watch(FILM, minutes, from_ms=len(viewer.pulses) * 60_000)
    house.spool.add(
        SpooledPulse(viewer.tid, read_pulse(pulse)[0].seq, pulse, viewer.ticket, SIGNED_MS, own=own)
        for pulse in pulses
    )


def deliver(house: House, intake: Intake) -> None:
    """Take everything that waits in a house to the origin."""
    viewers: dict[bytes, list[SpooledPulse]] = {}
    for item in house.spool.pending(10_000):
        viewers.setdefault(item.tid, []).append(item)
    for items in viewers.values():
        body = encode(PulsePost(1, [items[0].ticket], [item.pulse for item in items]))
        house.spool.settle(intake.post(body, SIGNED_MS))


def test_pulses_travel_once_each_and_their_acks_come_back(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    intake = open_intake(tmp_path)
    with houses(tmp_path, "far", "town") as (far, town):
        ann, bob = Viewer(1), Viewer(2)
        watched(far, ann, 9)
        assert far.export(stick).pulses == 10
        watched(far, bob, 4)
        watched(far, ann, 3)
        assert far.export(stick).pulses == 5 + 4
        assert far.export(stick).pulses == 0
        assert {item.way for item in far.spool.sent(0, 99)} == {"stick"}
        assert town.bring(stick, far).pulses == 19
        assert town.bring(stick, far).pulses == 0
        deliver(town, intake)
        assert (intake.counts().accepted, town.spool.waiting().count) == (19, 0)
        done = town.export(stick)
        assert (done.pulses, done.acks) == (0, 2)
        assert far.disk(stick).names("pulses") == []
        back = far.bring(stick, far)
        assert (back.settled, back.pulses, far.spool.waiting().count) == (19, 0, 0)
        assert len(far.spool.proofs()) == 2
    intake.close()


def test_a_post_stays_until_every_pulse_in_it_is_covered_or_too_old_for_anybody(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    intake = open_intake(tmp_path)
    with houses(tmp_path, "far", "town") as (far, town):
        ann, bob = Viewer(1), Viewer(2)
        watched(far, ann, 3)
        watched(far, bob, 3)
        far.export(stick)
        assert town.bring(stick, far).pulses == 8
        ack = intake.post(encode(PulsePost(1, [ann.ticket], ann.pulses)), SIGNED_MS)
        satchel = Satchel(far.disk(stick), read)
        assert satchel.settle([ack, b"rubbish"], SIGNED_MS) == 0
        assert satchel.open([]) == 4
        assert Satchel(far.disk(stick), read).acks == [ack]
        assert Satchel(far.disk(stick), read).settle([], SIGNED_MS + 8 * DAY_MS) == 0
        assert Satchel(far.disk(stick), read).settle([], SIGNED_MS + 11 * DAY_MS) == 1
        assert far.spool.waiting().count == 8, "our own wait for their ack all the same"
    intake.close()


def test_the_room_for_pulses_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSTS_LIMIT", 2)
    stick = tmp_path / "stick"
    stick.mkdir()
    with houses(tmp_path, "far") as (far,):
        for number in range(2):
            watched(far, Viewer(number), 1)
            far.export(stick)
        watched(far, Viewer(9), 1)
        assert far.export(stick).pulses == 0
        assert len(far.disk(stick).names("pulses")) == 2
