"""The tolerances at their exact edges, on both sides: what a viewer signs, and what an origin takes."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from farcast.node.playback.gateway import TICK_S
from farcast.node.pulses.wallet import Wallet
from farcast.origin.money.credit import Fact, credit
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.pulse import (
    ACTIVE,
    MAX_DELTA_MS,
    NO_WITNESS,
    RETURN,
    START,
    SWITCH,
    PulseSigner,
    Viewing,
    read_pulse,
)
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS, MAX_SEQ, Holder, TicketOffice
from farcast.protocol.viewing import CLOSE_S, GRACE_S, INTERVAL_S, Phase, PlayerEvent, ViewingSession

DAY = 20_760
OFFICE = TicketOffice(Identity(b"\x01" * 32), b"secret")
RULES = Rules()
MINUTE = 60_000


def fact(seq: int, at_ms: int, delta_ms: int, cum_ms: int, *, late_ms: int = 0, state: int = ACTIVE) -> Fact:
    at = DAY * DAY_MS + at_ms
    return Fact(
        bytes(16), 0, bytes(16), DAY, seq, f"{seq}".encode(), at, at + late_ms, cum_ms, delta_ms, state,
        b"film", (), "",
    )  # fmt: skip


def counted(*facts: Fact) -> list[int]:
    return [item.ms for item in credit(facts, RULES)]


class Player:
    """A player that says once a second that it plays, or that it does not."""

    def __init__(self) -> None:
        self.session = ViewingSession("film")
        self.now = 0.0
        self.sn = 0

    def say(self, state: str) -> None:
        """Report a state; with the first report, that a whole film was fetched."""
        self.sn += 1
        event = PlayerEvent(state, None, None, self.sn, 1_790_000_000_000 + round(self.now * 1000))
        self.session.receive(event, self.now)
        if self.sn == 1:
            for start_ms in range(0, 4_000_000, 2_000):
                self.session.delivered("video", start_ms, 2_000, self.now)

    def run(self, seconds: float, state: str) -> None:
        """Let time pass in a state, by the second."""
        self.say(state)
        end = self.now + seconds
        while self.now + 1 <= end:
            self.now += 1
            self.say(state)
            self.session.tick(self.now)
        self.now = end
        self.session.tick(self.now)


# --- heartbeat: 60 s, give or take 60 s


def test_a_heartbeat_comes_within_60_s_of_its_minute_and_says_no_more_than_two() -> None:
    player = Player()
    player.run(600, "p")
    due = player.session.take()
    assert [one.state for one in due] == [START, *[ACTIVE] * 10]
    assert all(INTERVAL_S <= later.at - one.at <= INTERVAL_S + GRACE_S for one, later in pairwise(due))
    assert INTERVAL_S + GRACE_S <= 120 <= MAX_DELTA_MS / 1000
    assert sum(one.delta_ms for one in due) == 600_000


@pytest.mark.parametrize(
    ("delta_ms", "signed_ms"), [(120_000, 120_000), (121_000, 121_000), (121_001, 121_000)]
)
def test_a_pulse_claims_at_most_121_s(delta_ms: int, signed_ms: int) -> None:
    session = Identity(b"\x02" * 32)
    grant = OFFICE.issue(bytes(16), DAY, session.key, Holder(bytes(16), 0))
    signer = PulseSigner(grant.ticket, grant.key, session)
    viewing = Viewing(ACTIVE, bytes(32), 0, 0, [], NO_WITNESS)
    assert read_pulse(signer.sign(0, delta_ms, 0, viewing))[0].delta_ms == signed_ms


@pytest.mark.parametrize(
    ("apart_ms", "delta_ms", "counts_ms"),
    [
        (0, 0, 0),
        (0, 2_000, 2_000),
        (0, 2_001, 2_000),
        (120_000, 120_000, 120_000),
        (119_000, 121_000, 121_000),
        (118_999, 121_000, 120_999),
    ],
)
def test_the_origin_counts_a_heartbeat_from_at_once_to_two_minutes(
    apart_ms: int, delta_ms: int, counts_ms: int
) -> None:
    start = fact(1, 0, 0, 0, state=START)
    assert counted(start, fact(2, apart_ms, delta_ms, delta_ms)) == [0, counts_ms]


# --- start: 1 s either way


def test_a_start_is_signed_within_a_second_of_the_first_picture() -> None:
    player = Player()
    player.now = 10.0
    player.say("s")
    player.now = 12.3
    player.say("p")
    [start] = player.session.take()
    assert (start.state, start.at, start.delta_ms) == (START, 12.3, 0)
    assert TICK_S <= 1, "what is due is signed at the next tick"


@pytest.mark.parametrize(
    ("start_ms", "counts_ms"),
    [(-1_000, MINUTE), (0, MINUTE), (1_000, MINUTE), (2_000, MINUTE), (2_001, 59_999)],
)
def test_a_start_that_was_stamped_a_second_off_loses_nothing(start_ms: int, counts_ms: int) -> None:
    assert counted(fact(1, start_ms, 0, 0, state=START), fact(2, MINUTE, MINUTE, MINUTE)) == [0, counts_ms]


def test_one_that_says_it_starts_may_have_counted_the_slack_and_no_more() -> None:
    assert counted(fact(1, 0, 2_001, 2_001, state=START)) == [2_000]


# --- five minutes without a pulse


@pytest.mark.parametrize(
    ("pause_s", "states"),
    [(CLOSE_S - 0.001, [ACTIVE]), (CLOSE_S, [RETURN]), (CLOSE_S + 100, [RETURN])],
)
def test_five_minutes_to_the_millisecond_close_a_session(pause_s: float, states: list[int]) -> None:
    player = Player()
    player.run(60, "p")
    player.say("a")
    last = player.session.take()[-1]
    assert last.at == player.now
    player.now += pause_s
    player.say("p")
    found = player.session.take()
    assert [one.state for one in found] == states
    assert [one.delta_ms for one in found] == [0]


def test_a_session_that_nobody_plays_on_is_closed_by_the_clock() -> None:
    player = Player()
    player.run(60, "p")
    player.say("a")
    phases: list[Phase] = []
    for pause_s in (CLOSE_S - 0.001, CLOSE_S):
        player.session.tick(player.now + pause_s)
        phases.append(player.session.phase)
    assert phases == [Phase.ACTIVE, Phase.CLOSED]


def test_return_and_switch_begin_anew_from_idle_to_active_to_closed() -> None:
    player = Player()
    phases = [player.session.phase]
    player.run(60, "p")
    phases.append(player.session.phase)
    player.session.switch("another", player.now)
    player.session.close(player.now)
    phases.append(player.session.phase)
    player.now += 1
    player.say("p")
    assert phases == [Phase.IDLE, Phase.ACTIVE, Phase.CLOSED]
    assert [one.state for one in player.session.take()][-2:] == [SWITCH, RETURN]


@pytest.mark.parametrize(("gap_ms", "counts_ms"), [(299_999, MINUTE), (300_000, MINUTE), (300_001, 0)])
@pytest.mark.parametrize("late_ms", [0, 120_000, 120_001, 7 * DAY_MS])
def test_five_minutes_to_the_millisecond_are_a_gap(gap_ms: int, counts_ms: int, late_ms: int) -> None:
    start = fact(1, 0, 0, 0, state=START, late_ms=late_ms)
    assert counted(start, fact(2, gap_ms, MINUTE, MINUTE, late_ms=late_ms)) == [0, counts_ms]


def test_the_gap_of_live_pulses_is_measured_where_they_arrived() -> None:
    start = fact(1, 0, 0, 0, state=START)
    for late_ms, counts_ms in ((60_000, MINUTE), (60_001, 0)):
        assert counted(start, fact(2, 240_000, MINUTE, MINUTE, late_ms=late_ms)) == [0, counts_ms]


def test_live_is_what_comes_within_120_s_and_the_future_begins_after_120_s() -> None:
    start = fact(1, 0, 0, 0, state=START)
    for at_ms, late_ms, counts_ms in (
        (200_000, 120_000, 0),  # live: it came 320 s after the start
        (200_000, 120_001, MINUTE),  # delayed: made 200 s after it
        (MINUTE, -120_000, MINUTE),
        (MINUTE, -120_001, 0),
    ):
        assert sum(counted(start, fact(2, at_ms, MINUTE, MINUTE, late_ms=late_ms))) == counts_ms


# --- the boundary of a UTC day: five minutes either way


@pytest.mark.parametrize(
    ("offset_ms", "days"),
    [
        (-300_001, [DAY - 1]),
        (-300_000, [DAY - 1, DAY]),
        (-1, [DAY - 1, DAY]),
        (0, [DAY, DAY - 1]),
        (299_999, [DAY, DAY - 1]),
        (300_000, [DAY]),
    ],
)
def test_around_midnight_a_node_signs_under_either_days_ticket(
    tmp_path: Path, offset_ms: int, days: list[int]
) -> None:
    at_ms = DAY * DAY_MS + offset_ms
    for held in (days, days[1:]):
        wallet = Wallet(tmp_path / f"{len(held)}.db")
        wanted = {day: key for day, key in wallet.wanted(DAY - 1) if day in held}
        grants = [
            OFFICE.issue(sha256(key).digest()[:16], day, key, Holder(bytes(16), 0))
            for day, key in wanted.items()
        ]
        wallet.accept(grants, [Identity(b"\x01" * 32).key])
        signer = wallet.signer(at_ms)
        assert (signer.body.day if signer else None) == (held[0] if held else None)
        wallet.close()


def test_a_ticket_has_numbers_for_more_than_its_day() -> None:
    assert (DAY_MS + 2 * 300_000) // 60_000 < MAX_SEQ
    session = Identity(b"\x02" * 32)
    grant = OFFICE.issue(bytes(16), DAY, session.key, Holder(bytes(16), 0))
    signer = PulseSigner(grant.ticket, grant.key, session, seq=MAX_SEQ - 1)
    viewing = Viewing(ACTIVE, bytes(32), 0, 0, [], NO_WITNESS)
    assert read_pulse(signer.sign(0, 0, 0, viewing))[0].seq == MAX_SEQ
    with pytest.raises(RemoteError) as caught:
        signer.sign(0, 0, 0, viewing)
    assert caught.value.reason == "spent"
