"""Playout: what a player that tells nothing can have played of what was delivered to it.

It is taken to play in real time, as long as every track it fetches has media left. Nobody can tell
whether it really plays at double speed, so two leads are kept: one over a playhead at normal speed,
which counting uses, and one over a playhead at double speed, which pacing must never let run dry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LEAD_MS = 30_000
"""The next segment waits while more than this is ahead of a playhead at normal speed ..."""
FAST_RATE = 2.0
FAST_LEAD_MS = 10_000
"""... and more than this ahead of one at double speed."""
LAST_MS = 6_000
"""The end of a file waits until so little is ahead of either, because who has it all need not stay."""
START_MS = 1_000
"""From the first bytes to a moving picture, at the start, after a seek and where it ran dry: mpv takes a
fifth of a second, VLC almost two."""
_GAP_MS = 4_000
"""Segments on their way side by side arrive at most this far apart."""
_ABANDONED_MS = LEAD_MS + 10_000
"""A track this far behind another one is no longer played: the player has moved on without it."""
_SEGMENTS_LIMIT = 100_000


@dataclass(slots=True)
class _Track:
    """One track since the last seek: which segments, in which rendition, and how much is unplayed."""

    first_ms: int
    newest_ms: int
    end_ms: int
    level_ms: float = 0.0
    fast_ms: float = 0.0
    seen: dict[int, int] = field(default_factory=dict[int, int])


class Playout:
    """One player: ``fill`` it with what goes out, ``advance`` it with time."""

    def __init__(self) -> None:
        """Begin with nothing delivered."""
        self.position_ms = 0.0
        self._tracks: dict[str, _Track] = {}
        self._starting_ms = float(START_MS)

    @property
    def playing(self) -> bool:
        """Whether there is something left to play."""
        return self._room_ms > 0

    def fill(
        self, track: str, start_ms: int, duration_ms: int, rendition: int = 0, *, again_ms: int = 0
    ) -> None:
        """Hear that a segment went out; what shows a seek throws away what was buffered before it.

        A player that reads one long file may lose and fetch again the last ``again_ms``.
        """
        known = self._tracks.get(track)
        if known is not None and self._is_seek(known, start_ms, rendition, again_ms):
            if not self._joins(track, start_ms):
                self._tracks.clear()
            self._tracks.pop(track, None)
            known = None
        if not self._tracks:
            self.position_ms, self._starting_ms = float(start_ms), float(START_MS)
        if known is None:
            known = self._tracks[track] = _Track(start_ms, start_ms, start_ms)
        known.newest_ms = max(known.newest_ms, start_ms) if again_ms else start_ms
        known.end_ms = max(known.end_ms, start_ms + duration_ms)
        if start_ms in known.seen:
            known.seen[start_ms] = rendition
        elif len(known.seen) < _SEGMENTS_LIMIT:
            known.seen[start_ms] = rendition
            known.level_ms += duration_ms
            known.fast_ms += duration_ms

    def advance(self, wall_ms: float) -> float:
        """Let time pass; returns how many ms of it the player can have played."""
        room_ms = self._room_ms
        played_ms = min(max(wall_ms - self._starting_ms, 0.0), room_ms)
        self._starting_ms = max(self._starting_ms - wall_ms, 0.0) if room_ms > played_ms else float(START_MS)
        for track in self._tracks.values():
            track.level_ms = max(track.level_ms - played_ms, 0.0)
            track.fast_ms = max(track.fast_ms - wall_ms * FAST_RATE, 0.0)
        self.position_ms += played_ms
        return played_ms

    def lead_ms(self, track: str) -> float:
        """Return how much of a track is out and unplayed at normal speed."""
        known = self._tracks.get(track)
        return known.level_ms if known is not None else 0.0

    def wait_ms(self, track: str, start_ms: int, again_ms: int = 0, *, last: bool = False) -> float:
        """Return how long a segment has to wait, the ``last`` of a file longer; none after a seek waits."""
        known = self._tracks.get(track)
        if known is None or self._is_seek(known, start_ms, known.seen.get(start_ms, 0), again_ms):
            return 0.0
        lead_ms, fast_lead_ms = (LAST_MS, LAST_MS) if last else (LEAD_MS, FAST_LEAD_MS)
        return max(0.0, min(known.level_ms - lead_ms, (known.fast_ms - fast_lead_ms) / FAST_RATE))

    def clear(self) -> None:
        """Forget what was delivered: the player has begun again."""
        self._tracks.clear()

    @property
    def _room_ms(self) -> float:
        """What every track still played has left."""
        furthest_ms = max((track.end_ms for track in self._tracks.values()), default=0)
        return min(
            (track.level_ms for track in self._tracks.values() if furthest_ms - track.end_ms < _ABANDONED_MS),
            default=0.0,
        )

    def _is_seek(self, known: _Track, start_ms: int, rendition: int, again_ms: int) -> bool:
        """Say whether a segment is no continuation: far ahead, behind, or one that went out before.

        Another rendition of what went out replaces it; the newest again is a second try.
        """
        if start_ms in known.seen:
            return start_ms < known.newest_ms - again_ms and rendition == known.seen[start_ms]
        return start_ms > known.end_ms + _GAP_MS or start_ms < known.first_ms

    def _joins(self, track: str, start_ms: int) -> bool:
        """Say whether a track comes to where another one has just begun, as after a seek of both."""
        return any(
            abs(known.first_ms - start_ms) <= _GAP_MS and known.end_ms - known.first_ms <= 2 * _GAP_MS
            for name, known in self._tracks.items()
            if name != track
        )
