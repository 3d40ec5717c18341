"""The player sessions of a gateway: who plays what, folded from reports and deliveries."""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.cid import Cid
from ...protocol.cmcd import Report
from ...protocol.viewing import INTERVAL_S, Phase, PlayerEvent, PulseDue, ViewingSession
from ...protocol.wall import Wall
from .timeline import Slot
from .trail import Trail

SESSIONS_LIMIT = 256
FORGET_S = 3_600.0
SIGHTINGS_KEPT = 64
CONNECTIONS_KEPT = 8
RECENT = 4
"""Of the newest segments delivered, the next one follows on one."""

Client = tuple[str, str]
"""A player that does not name itself: its address and its User-Agent; in memory only, never written."""


class Sighting(NamedTuple):
    """A media segment that went to a player whole, its first block, and the manifest it was listed under."""

    slot: Slot
    block: Cid
    again_ms: int = 0
    manifest: Cid | None = None


@dataclass(slots=True, eq=False)
class Session:
    """One player, by its CMCD session id or, lacking that, by its client and title."""

    key: str
    client: Client
    viewing: ViewingSession
    used_at: float
    lies: Tally[str] = field(default_factory=Tally[str])
    connections: deque[Callable[[], bool]] = field(
        default_factory=lambda: deque[Callable[[], bool]](maxlen=CONNECTIONS_KEPT)
    )
    gone: bool = False
    drops: bool = False
    sightings: deque[Sighting] = field(default_factory=lambda: deque[Sighting](maxlen=SIGHTINGS_KEPT))
    trail: Trail = field(default_factory=Trail)

    def sighting(self, position_ms: int) -> Sighting | None:
        """Return the delivered video segment at a position, else the newest delivered."""
        for one in reversed(self.sightings):
            slot = one.slot
            if slot.track == "video" and slot.start_ms <= position_ms < slot.start_ms + slot.duration_ms:
                return one
        return self.sightings[-1] if self.sightings else None

    def connected(self, is_open: Callable[[], bool], slot: Slot | None) -> None:
        """Hear of a request for a segment, and how to tell whether its connection stands.

        A player that had closed them all and goes on with the next segment is one that closes each after
        use: of such a one it says nothing that none is open. No ``slot``: it reads a file, by ranges.
        """
        if self.gone and slot is None:
            self.gone = False
        if self.gone and slot is not None:
            ends = [one.slot.start_ms + one.slot.duration_ms for one in self.sightings]
            self.drops |= slot.start_ms in ends[-RECENT:]
            self.gone = False
        self.connections.append(is_open)

    def look(self, now: float) -> None:
        """Notice that a player counted by delivery is gone: it has closed every connection."""
        if self.gone or self.drops or self.viewing.reports or not self.connections:
            return
        if not any(is_open() for is_open in self.connections):
            self.gone = True
            self.viewing.left(now)


class Sessions:
    """At most 256 sessions; the one unused for longest leaves first."""

    def __init__(self, registry: CollectorRegistry, *, interval_s: float = INTERVAL_S) -> None:
        """Make every session's pulses due each ``interval_s``."""
        self._interval_s = interval_s
        self._wall = Wall()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._leaving: list[tuple[Session, PulseDue]] = []
        self._active = Gauge(
            "farcast_node_sessions", "Players that play or paused lately.", registry=registry
        )
        self._events = Counter(
            "farcast_node_player_events", "Player events, by what became of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        self._lies = Counter(
            "farcast_node_player_lies", "Player reports that cannot be true.", ["reason"], registry=registry
        )

    def find(self, sid: str, client: Client, title: str, now: float) -> Session:
        """Return the session a request for ``title`` belongs to, a new one where there is none."""
        key = f"sid:{sid}" if sid else _unnamed(client, title)
        session = self._sessions.get(key)
        if session is None:
            session = self._adopt(key, client, title) if sid else None
        if session is None:
            viewing = ViewingSession(title, interval_s=self._interval_s, wall=self._wall)
            session = self._sessions[key] = Session(key, client, viewing, now)
            self._make_room(now)
        session.used_at = now
        self._sessions.move_to_end(key)
        return session

    def delivered(self, session: Session, title: str, sighting: Sighting, now: float) -> None:
        """Hear that a media segment of ``title`` went out whole."""
        session.viewing.switch(title, now)
        session.sightings.append(sighting)
        slot = sighting.slot
        session.viewing.delivered(slot.track, slot.start_ms, slot.duration_ms, now, rendition=slot.rendition)

    def asked(self, session: Session, title: str, report: Report, slot: Slot, now: float) -> None:
        """Fold what a player said with its request for a segment of ``title``."""
        if not report.sid:
            return
        session.viewing.switch(title, now)
        session.viewing.requested(_event(report), slot.track, slot.start_ms, report.ahead_ms, now)
        self._note_lies(session)

    def opened(self, client: Client, title: str, now: float) -> None:
        """Hear that a player which does not name itself asked for a playlist of ``title``."""
        session = self._sessions.get(_unnamed(client, title))
        if session is not None and session.gone:
            session.gone = False
            session.connections.clear()
            session.viewing.began_again(now)

    def report(self, report: Report, client: Client, known: Callable[[str], bool], now: float) -> bool:
        """Fold one event-mode report; False where it names no session and no title that ``known`` knows."""
        title = report.content if known(report.content) else ""
        if not report.sid or (f"sid:{report.sid}" not in self._sessions and not title):
            self._events.labels("unknown").inc()
            return False
        session = self.find(report.sid, client, title, now)
        if title:
            session.viewing.switch(title, now)
        session.viewing.receive(_event(report), now)
        self._note_lies(session)
        self._events.labels("folded").inc()
        return True

    def take(self, now: float) -> list[tuple[Session, PulseDue]]:
        """Let time pass and return the pulses due, in order.

        Before a new session's first pulse the others say what they have: pulses of one box share a
        chain, and none may claim time before the one in front of it.
        """
        active = 0
        due: list[tuple[Session, PulseDue]] = []
        for session in list(self._sessions.values()):
            session.look(now)
            session.viewing.tick(now)
            active += session.viewing.phase is Phase.ACTIVE
            due += [(session, one) for one in session.viewing.take()]
            if session.viewing.phase is not Phase.ACTIVE and now - session.used_at > FORGET_S:
                del self._sessions[session.key]
        due += self._leaving
        self._leaving = []
        if any(one.delta_ms == 0 for _, one in due):
            beginning = {session.key for session, _ in due}
            for session in self._sessions.values():
                if session.key not in beginning:
                    session.viewing.flush(now)
                    due = [*((session, one) for one in session.viewing.take()), *due]
        self._active.set(active)
        return due

    def close(self, now: float) -> list[tuple[Session, PulseDue]]:
        """End every session and return their last pulses."""
        for session in self._sessions.values():
            session.viewing.close(now)
        return self.take(now)

    def wait_s(
        self, session: Session, slot: Slot, now: float, again_ms: int = 0, *, last: bool = False
    ) -> float:
        """Return how long a segment has to wait until it may go out (``protocol/playout.py``)."""
        viewing = session.viewing
        return viewing.wait_ms(slot.track, slot.start_ms, now, again_ms=again_ms, last=last) / 1000

    def plays(self, title: str) -> bool:
        """Say whether a player was lately given something of ``title``."""
        return any(one.viewing.content == title for one in self._sessions.values())

    def trail(self, title: str, sid: str) -> Trail | None:
        """Return the trail of the player that calls itself ``sid``, else of the newest that plays a title."""
        session = self._sessions.get(f"sid:{sid}") if sid else None
        titled = (one for one in reversed(self._sessions.values()) if one.viewing.content == title)
        session = session or next(titled, None)
        return session.trail if session else None

    def status(self, now: float) -> list[dict[str, object]]:
        """Return what page and admin calls show of every session; no client address."""
        return [
            {
                "title": one.viewing.content,
                "phase": one.viewing.phase.value,
                "playing": one.viewing.playing,
                "reports": one.viewing.reports,
                "basis": one.viewing.basis.value,
                "position_ms": one.viewing.position_ms,
                "viewed_ms": int(one.viewing.counted_ms),
                "lead_ms": int(one.viewing.lead_ms("video", now)),
                "lies": dict(one.viewing.lies),
                "idle_s": round(now - one.used_at, 1),
            }
            for one in reversed(self._sessions.values())
        ]

    def _adopt(self, key: str, client: Client, title: str) -> Session | None:
        """Let a player that began to name itself keep what was delivered to it before."""
        session = self._sessions.pop(_unnamed(client, title), None)
        if session is not None:
            session.key = key
            self._sessions[key] = session
        return session

    def _note_lies(self, session: Session) -> None:
        for reason, count in (session.viewing.lies - session.lies).items():
            self._lies.labels(reason).inc(count)
        session.lies = session.viewing.lies.copy()

    def _make_room(self, now: float) -> None:
        while len(self._sessions) > SESSIONS_LIMIT:
            _, oldest = self._sessions.popitem(last=False)
            oldest.viewing.close(now)
            self._leaving += [(oldest, one) for one in oldest.viewing.take()]


def _unnamed(client: Client, title: str) -> str:
    """Return the key of a player that gives no session id."""
    return f"client:{client[0]} {client[1]} {title}"


def _event(report: Report) -> PlayerEvent:
    return PlayerEvent(report.state, report.rate, report.position_ms, report.sn, report.ts_ms)
