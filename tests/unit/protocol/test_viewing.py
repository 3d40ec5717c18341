"""What counts as watched: the scenarios people care about, and every lie hypothesis can think of."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.pulse import ACTIVE, MAX_DELTA_MS, RETURN, START, SWITCH
from farcast.protocol.viewing import Phase, PlayerEvent, PulseDue, ViewingSession
from farcast.protocol.wall import Wall

EPOCH_MS = 1_790_000_000_000


class Player:
    """A well-behaved CMCD v2 player without ``pt``, as hls.js is: numbered events on its own clock."""

    def __init__(self, *, interval_s: float = 60.0, sends_position: bool = False) -> None:
        self.session = ViewingSession("film", interval_s=interval_s)
        self.now = 1_000.0
        self.sn = 0
        self.position = 0.0
        self.rate = 1.0
        self.state = "s"
        self.watched = 0.0
        self.fetched = 0
        self.sends_position = sends_position
        self.due: list[PulseDue] = []

    def say(self, state: str = "", rate: float | None = None) -> None:
        """Send one event."""
        self.state, self.rate = state or self.state, rate or self.rate
        self.sn += 1
        position = int(self.position * 1000) if self.sends_position else None
        ts = EPOCH_MS + int(self.now * 1000)
        told = self.rate if self.rate != 1 else rate  # a speed of 1 goes without saying
        self.session.receive(PlayerEvent(state, told, position, self.sn, ts), self.now + 0.005)

    def run(self, seconds: float) -> None:
        """Let time pass in tenths; fetches 2 s segments to keep 10 s ahead, reports every 5 s."""
        for step in range(round(seconds * 10)):
            self.now += 0.1
            if self.state == "p":
                self.position += 0.1 * self.rate
                self.watched += 0.1
            while self.fetched < self.position + 10:
                self.session.delivered("video", self.fetched * 1000, 2_000, self.now)
                self.session.delivered("audio", self.fetched * 1000, 2_000, self.now)
                self.fetched += 2
            if step % 50 == 49:
                self.say()
            self.session.tick(self.now)
        self.due += self.session.take()

    def seek(self, position: float) -> None:
        """Move the playhead and go on."""
        self.say("k")
        self.position = position
        self.fetched = int(position) // 2 * 2
        self.run(0.3)
        self.say("p")

    def end(self) -> None:
        """Reach the end of the film."""
        self.say("e")
        self.due += self.session.take()

    @property
    def claimed_s(self) -> float:
        """What all pulses so far claim."""
        return sum(due.delta_ms for due in self.due) / 1000


def test_pause_double_speed_and_seek_count_within_one_percent() -> None:
    for sends_position in (False, True):
        player = Player(interval_s=5.0, sends_position=sends_position)
        player.say("s")
        player.run(0.5)
        player.say("p")
        player.run(30)
        player.say("a")
        player.run(20)
        player.say("p")
        player.run(25)
        player.say("", rate=2.0)
        player.run(20)
        player.seek(200)
        player.run(25)
        player.end()
        assert abs(player.claimed_s - player.watched) <= 0.01 * player.watched
        assert player.session.lies.total() == 0


def test_the_first_pulse_is_a_start_of_nothing_and_the_next_come_each_interval() -> None:
    player = Player()
    player.say("p")
    player.run(200)
    player.end()
    assert [due.state for due in player.due] == [START] + [ACTIVE] * 4
    assert player.due[0].delta_ms == 0
    for before, after in zip(player.due, player.due[1:-1], strict=False):
        assert 60.0 <= after.at - before.at <= 66.0
        assert after.delta_ms <= (after.at - before.at) * 1000
    assert abs(player.claimed_s - 200) <= 2.0


def test_five_minutes_of_pause_close_the_session_and_playing_on_is_a_return() -> None:
    player = Player()
    player.say("p")
    player.run(30)
    player.say("a")
    player.run(400)
    assert player.session.phase is Phase.CLOSED
    assert player.session.wake_at is None
    player.say("p")
    player.run(1)
    player.end()
    assert [due.state for due in player.due] == [START, ACTIVE, RETURN, ACTIVE]
    assert abs(player.claimed_s - 31) <= 0.3


def test_a_pause_just_short_of_closing_leaves_no_gap_of_five_minutes_between_pulses() -> None:
    player = Player()
    player.say("p")
    player.run(62)
    player.say("a")
    player.run(280)
    player.say("p")
    player.run(70)
    player.end()
    gaps = [after.at - before.at for before, after in zip(player.due, player.due[1:], strict=False)]
    assert max(gaps) < 300
    assert abs(player.claimed_s - 132) <= 2


def test_a_vanished_player_is_paid_up_to_its_last_sign_of_life() -> None:
    player = Player()
    player.say("p")
    player.run(40)
    player.session.tick(player.now + 70)
    player.session.tick(player.now + 400)
    player.due += player.session.take()
    assert player.session.phase is Phase.CLOSED
    assert 39 <= player.claimed_s <= 40.1


def test_a_change_of_title_ends_one_count_and_begins_the_next() -> None:
    player = Player()
    player.say("p")
    player.run(20)
    player.session.switch("other", player.now)
    player.session.switch("other", player.now)
    player.due += player.session.take()
    assert [(due.state, due.content) for due in player.due] == [
        (START, "film"),
        (ACTIVE, "film"),
        (SWITCH, "other"),
    ]
    assert abs(player.due[1].delta_ms - 20_000) <= 200


def test_nothing_fetched_means_nothing_watched_whatever_the_player_says() -> None:
    session = ViewingSession("film")
    for second in range(200):
        session.receive(PlayerEvent("p", 1.0, None, second, None), float(second))
    session.close(200.0)
    assert session.counted_ms == 0


def test_media_cannot_be_played_that_was_never_delivered() -> None:
    session = ViewingSession("film")
    session.receive(PlayerEvent("p", 16.0, None, 0, None), 0.0)
    session.delivered("video", 0, 2_000, 0.0)
    for second in range(1, 60):
        session.receive(PlayerEvent("p", 16.0, None, second, None), float(second))
    assert session.counted_ms <= (2_000 + 4_000) / 16 + 1


def test_a_playhead_that_stands_still_earns_nothing() -> None:
    session = ViewingSession("film")
    for second in range(0, 60, 2):
        session.delivered("video", second * 1000, 2_000, float(second))
        session.receive(PlayerEvent("p", 1.0, 5_000, second, None), float(second))
    assert session.counted_ms == 0


def test_repeated_old_and_absurd_reports_are_counted_and_change_nothing() -> None:
    player = Player()
    player.say("p")
    player.run(5)
    session, sn = player.session, player.sn
    before = session.counted_ms
    for event in (
        PlayerEvent("a", None, None, sn, None),
        PlayerEvent("a", None, None, sn - 1, None),
        PlayerEvent("a", None, None, -5, None),
        PlayerEvent("x", None, None, sn + 1, None),
    ):
        session.receive(event, player.now)
    session.receive(PlayerEvent("", -3.0, -1, sn + 2, -1), player.now)
    session.receive(PlayerEvent("", 1e9, 2**60, sn + 3, None), player.now)
    assert session.state == "p"
    assert session.counted_ms - before <= 100
    assert session.lies == {
        "repeated_sn": 1,
        "old_sn": 2,
        "unknown_state": 1,
        "bad_rate": 2,
        "bad_position": 2,
        "bad_ts": 1,
    }


def test_a_player_that_begins_again_with_low_numbers_is_heard() -> None:
    player = Player()
    player.say("p")
    player.run(12)
    player.sn = 0
    player.say("a")
    assert player.session.state == "a"


def test_a_player_that_only_fetches_is_counted_by_wall_and_delivery() -> None:
    session = ViewingSession("film", interval_s=5.0)
    now = 50.0
    for second in range(0, 60, 2):
        while session.wait_ms("video", second * 1000, now):
            now += 0.1
        session.delivered("video", second * 1000, 2_000, now)
        session.delivered("audio", second * 1000, 2_000, now)
    assert 22 <= now - 50 <= 26, "delivery was paced to a lead of 30 s, then to double speed"
    for step in range(400):
        session.tick(now + step / 10)
    session.close(now + 400)
    due = session.take()
    assert due[0].state == START
    claimed = sum(one.delta_ms for one in due)
    assert 57_000 <= claimed <= 60_000
    assert abs(session.position_ms - 60_000) <= 2_000


def test_what_a_seek_throws_away_is_not_counted() -> None:
    session = ViewingSession("film")
    for start in range(0, 20_000, 2_000):
        session.delivered("video", start, 2_000, 0.0)
    session.delivered("video", 600_000, 2_000, 1.0)
    session.close(100.0)
    assert session.counted_ms == 2_000, "and a player takes a second to begin"
    assert session.position_ms == 602_000


def test_a_rewatch_counts_and_a_second_copy_of_a_segment_does_not() -> None:
    session = ViewingSession("film")
    for _ in range(3):
        session.delivered("video", 0, 2_000, 0.0)
    session.tick(60.0)
    assert session.counted_ms == 2_000
    session.delivered("video", 60_000, 2_000, 60.0)
    session.delivered("video", 0, 2_000, 70.0)
    session.tick(80.0)
    assert session.counted_ms == 6_000


class Asker:
    """A player of CMCD version 1: it names its buffer in each request, and its speed where that is not 1."""

    def __init__(self, *, buffer_s: float = 20.0) -> None:
        self.session = ViewingSession("film", interval_s=5.0)
        self.now = 500.0
        self.position = self.fetched = 0.0
        self.rate = 1.0
        self.buffer_s = buffer_s
        self.watched = 0.0

    def run(self, seconds: float, *, paused: bool = False, dry: bool = False) -> None:
        """Let time pass in tenths; ``dry``: no segment comes."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            step = min(0.1 * self.rate, self.fetched - self.position)
            if not paused and step > 1e-9:
                self.position += step
                self.watched += 0.1
            while not dry and self.fetched < self.position + self.buffer_s:
                for track in ("audio", "video"):
                    ahead_ms = round((self.fetched - self.position) * 10) * 100
                    rate = self.rate if self.rate != 1 else None
                    event = PlayerEvent("", rate)
                    start_ms = round(self.fetched * 1000)
                    self.session.requested(event, track, start_ms, max(ahead_ms, 0), self.now)
                    self.session.delivered(track, start_ms, 2_000, self.now)
                self.fetched += 2
            self.session.tick(self.now)

    def seek(self, position: float) -> None:
        """Move the playhead out of the buffer."""
        self.position = position
        self.fetched = float(position // 2 * 2)


def test_a_player_that_names_its_buffer_is_never_paid_more_and_little_less() -> None:
    player = Asker()
    player.run(30)
    player.run(40, paused=True)
    player.run(20)
    player.rate = 2.0
    player.run(15)
    player.rate = 1.0
    player.run(10)
    player.seek(600)
    player.run(20)
    player.run(28, dry=True)
    player.run(20)
    counted = player.session.counted_ms / 1000
    assert counted <= player.watched * 1.001
    assert counted >= player.watched - 10, "two seconds at each seek and change of speed, and the last"
    assert player.session.lies.total() == 0
    assert player.session.reports
    assert abs(player.session.position_ms / 1000 - player.position) <= 2.1


def test_buffering_ahead_of_play_counts_nothing() -> None:
    player = Asker()
    player.run(60, paused=True)
    assert player.session.counted_ms == 0


def test_a_buffer_that_cannot_be_is_a_lie_and_places_nothing() -> None:
    session = ViewingSession("film")
    for second in range(0, 20, 2):
        session.delivered("video", second * 1000, 2_000, float(second))
        session.requested(PlayerEvent(), "video", second * 1000, -5, float(second))
        session.requested(PlayerEvent(), "video", second * 1000, 10**9, float(second))
    assert session.lies == {"bad_buffer": 20}
    assert not session.reports


def test_sixteen_times_the_speed_is_worth_a_sixteenth_of_the_media() -> None:
    session = ViewingSession("film")
    for turn in range(60):
        session.requested(PlayerEvent("p", 16.0), "video", turn * 2_000, 0, turn * 0.125)
        session.delivered("video", turn * 2_000, 2_000, turn * 0.125)
    assert session.counted_ms <= 60 * 125


def test_two_tabs_at_once_are_one_stretch_of_watching() -> None:
    wall = Wall()
    tabs = [Player(interval_s=5.0), Player(interval_s=5.0)]
    for tab in tabs:
        tab.session = ViewingSession("film", interval_s=5.0, wall=wall)
        tab.say("p")
    for _ in range(40):
        for tab in tabs:
            tab.run(1)
    tabs[1].say("a")
    tabs[0].run(20)
    total = sum(tab.session.counted_ms for tab in tabs) / 1000
    assert abs(total - 60) <= 0.6


def test_a_player_that_closed_its_connections_is_counted_no_further() -> None:
    session = ViewingSession("film")
    for start in range(0, 30_000, 2_000):
        session.delivered("video", start, 2_000, 0.0)
    session.left(11.0)
    session.close(100.0)
    assert session.counted_ms == 10_000


def test_one_that_closes_each_connection_and_goes_on_loses_nothing() -> None:
    session = ViewingSession("film")
    for start in range(0, 30_000, 2_000):
        session.delivered("video", start, 2_000, 0.0)
    session.left(11.0)
    session.delivered("video", 30_000, 2_000, 21.0)
    assert session.counted_ms == 20_000
    session.left(22.0)
    session.began_again(60.0)
    session.delivered("video", 32_000, 2_000, 61.0)
    session.close(100.0)
    assert session.counted_ms == 23_000


EVENTS = st.builds(
    PlayerEvent,
    st.sampled_from(["", "p", "p", "p", "a", "k", "s", "r", "e", "zz"]),
    st.none() | st.floats(-20, 1e6) | st.just(1.0),
    st.none() | st.integers(-(2**60), 2**60) | st.integers(0, 100_000),
    st.none() | st.integers(-5, 2**40),
    st.none() | st.integers(-(2**60), 2**60) | st.integers(EPOCH_MS, EPOCH_MS + 600_000),
)
SEGMENTS = st.tuples(st.sampled_from(["video", "audio"]), st.integers(-10, 10**6), st.integers(-10, 10**5))
ASKS = st.tuples(
    EVENTS,
    st.sampled_from(["video", "audio"]),
    st.integers(0, 10**6),
    st.none() | st.integers(-(10**9), 10**9) | st.integers(0, 30_000),
)
STEPS = st.lists(
    st.tuples(
        st.floats(0, 400),
        EVENTS | SEGMENTS | ASKS | st.sampled_from(["tick", "film", "other", "left", "again"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_player_earns_more_than_the_wall_or_less_than_nothing(
    steps: list[tuple[float, Any]],
) -> None:
    session = ViewingSession("film")
    now = 10.0
    due: list[PulseDue] = []
    for gap, step in steps:
        now += gap
        if isinstance(step, PlayerEvent):
            session.receive(step, now)
        elif isinstance(step, str):
            if step == "tick":
                session.tick(now)
            elif step == "left":
                session.left(now)
            elif step == "again":
                session.began_again(now)
            else:
                session.switch(step, now)
        elif isinstance(step[0], PlayerEvent):
            event, track, start_ms, buffer_ms = step
            session.requested(event, track, start_ms, buffer_ms, now)
        else:
            track, start_ms, duration_ms = step
            session.delivered(track, start_ms, duration_ms, now)
        due += session.take()
        wake = session.wake_at
        assert wake is None or session.phase is Phase.ACTIVE
        assert session.counted_ms <= (now - 10.0) * 1000 + 1e-3
        assert 0 <= session.position_ms < 2**32
    session.close(now)
    due += session.take()
    assert sum(one.delta_ms for one in due) <= session.counted_ms + 1e-3
    assert all(0 <= one.delta_ms <= MAX_DELTA_MS for one in due)
    assert all(one.delta_ms == 0 for one in due if one.state != ACTIVE)
    if due:
        assert due[0].state == START
        assert sum(one.delta_ms for one in due) <= (due[-1].at - due[0].at) * 1000 + 1
