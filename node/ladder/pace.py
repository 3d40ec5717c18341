"""The pace of a tier: how soon its answers begin."""

from __future__ import annotations

from collections import deque

_SAMPLES = 64


class Pace:
    """The latest times to first byte of a whole tier, for the hedge delay."""

    def __init__(self) -> None:
        self._ttfb_s: deque[float] = deque(maxlen=_SAMPLES)

    def __bool__(self) -> bool:
        """Whether there is any sample."""
        return bool(self._ttfb_s)

    def add(self, ttfb_s: float) -> None:
        """Take one more sample."""
        self._ttfb_s.append(ttfb_s)

    def p95(self, default: float) -> float:
        """Return the 95th percentile in seconds, ``default`` before the first sample."""
        ordered = sorted(self._ttfb_s)
        return ordered[len(ordered) * 95 // 100] if ordered else default
