from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.pulses.history import History
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.wallet import Wallet
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import ACTIVE, Served, Viewing
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice

TICKETS = Identity(b"\x05" * 32)
DAY = 20_700
NOON_MS = DAY * DAY_MS + DAY_MS // 2
FILM = b"\x07" * 32


class Box:
    """A wallet with today's ticket, and the spool its pulses go to."""

    def __init__(self, home: Path) -> None:
        self.spool = DiskSpool(home / "spool.db", CollectorRegistry())
        self.wallet = Wallet(home / "wallet.db", days_ahead=0)
        self.history = History(self.spool, self.wallet)
        office = TicketOffice(TICKETS, b"secret" * 6)
        holder = Holder(bytes(16), 0)
        grants = [
            office.issue(sha256(key).digest()[:16], day, key, holder) for day, key in self.wallet.wanted(DAY)
        ]
        self.wallet.accept(grants, [TICKETS.key])

    def watch(self, at_ms: int) -> None:
        """Sign a minute."""
        signer = self.wallet.signer(at_ms)
        assert signer is not None
        viewing = Viewing(ACTIVE, FILM, 61_000, 0, [Served(2, b"r" * 16, 512)], bytes(16))
        pulse = signer.sign(at_ms, 60_000, 0, viewing)
        item = SpooledPulse(signer.body.tid, signer.seq, pulse, signer.ticket, at_ms, own=True)
        assert self.spool.add([item]) == 1


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.wallet.close()
    made.spool.close()


def test_a_pulse_is_told_as_it_was_sealed(box: Box) -> None:
    box.watch(NOON_MS)
    (told,) = box.history.read(NOON_MS + 5, {FILM: "film"})
    assert told.pop("bytes") > 300
    assert told == {
        "at_ms": NOON_MS, "title": "film", "viewed_ms": 60_000, "position_ms": 61_000,
        "served": [{"tier": "relay", "kbytes": 512}], "state": "waiting", "way": "", "left_ms": None,
        "acked_ms": None, "reason": "", "judged_ms": None, "not_counted": [],
    }  # fmt: skip
    (unlisted,) = box.history.read(NOON_MS + 5, {})
    assert (unlisted["title"], unlisted["position_ms"]) == ("", 61_000)


def test_what_is_a_day_old_is_told_only_while_it_waits(box: Box) -> None:
    box.watch(NOON_MS)
    box.watch(NOON_MS + 60_000)
    assert len(box.history.read(NOON_MS + 2 * DAY_MS, {})) == 2
    assert [one["at_ms"] for one in box.history.read(NOON_MS, {})] == [NOON_MS + 60_000, NOON_MS]


def test_a_pulse_whose_key_is_gone_is_told_without_its_inside(box: Box) -> None:
    box.watch(NOON_MS)
    box.wallet.prune(DAY + 99)
    (told,) = box.history.read(NOON_MS + 5, {FILM: "film"})
    assert (told["title"], told["position_ms"], told["served"]) == ("", None, [])
    assert told["viewed_ms"] == 60_000
