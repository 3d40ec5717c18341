"""A stretch: playback between two seeks, counted by the smallest of what its bounds allow."""

from __future__ import annotations


class Stretch:
    """Media and wall time of one stretch so far; what it counted is never taken back."""

    __slots__ = ("_counted_ms", "_media_wall_ms", "_wall_ms", "media_ms")

    def __init__(self) -> None:
        """Begin with nothing played."""
        self.media_ms = 0.0
        self._media_wall_ms = 0.0
        self._wall_ms = 0.0
        self._counted_ms = 0.0

    def advance(self, wall_ms: float, media_ms: float, rate: float, slack_ms: float) -> float:
        """Let ``media_ms`` be played at ``rate`` while ``wall_ms`` passed; returns the ms newly counted.

        The bounds hold for the stretch as a whole, so that what is rounded now evens out later; one may
        run ahead of the other by ``slack_ms`` at most, so that a pause saves up nothing.
        """
        self.media_ms += media_ms
        wall = self._wall_ms + wall_ms
        media = self._media_wall_ms + media_ms / rate
        newly_ms = min(wall, media) - self._counted_ms
        if wall > media + slack_ms:
            wall = media + slack_ms
        elif media > wall + slack_ms:
            media = wall + slack_ms
        self._wall_ms, self._media_wall_ms = wall, media
        if newly_ms <= 0:
            return 0.0
        self._counted_ms += newly_ms
        return newly_ms
