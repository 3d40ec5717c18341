"""Health: what a box has learned of one source: how quick it is, and when it may be asked again.

Pure bookkeeping for the ladder: peak-EWMA of time to first byte and rate, passive ejection with a
doubling back-off and one half-open probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

BACKOFF_FIRST_S = 1.0
RETRY_AFTER_LIMIT_S = 60.0
STRIKES = 2
_EWMA_NEW = 0.3
_LATENCY_BYTES = 64 << 10
"""Below this a whole answer's time says latency, not rate."""
_UNKNOWN_RATE_BYTES_S = 1_250_000.0


class Tuning(NamedTuple):
    """The ``[ladder]`` settings.

    A late answer is hedged after ``hedge_min_s`` to ``hedge_max_s``; no back-off is longer than
    ``probe_s``, so that a recovered tier is noticed; ``waste_percent`` of a film may arrive twice.
    """

    hedge_min_s: float = 0.05
    hedge_max_s: float = 0.25
    probe_s: float = 10.0
    waste_percent: int = 3


@dataclass(slots=True)
class Health:
    """One source as seen from one network; times in seconds on the caller's clock."""

    ttfb_s: float = 0.0
    rate_bytes_s: float = 0.0
    gap_s: float = 0.0
    inflight: int = 0
    backoff_s: float = 0.0
    ejected_at: float = float("-inf")
    free_at: float = float("-inf")
    asked_off_until: float = float("-inf")
    probing: bool = False
    heard_at: float = float("-inf")
    strikes: int = 0
    slow_bytes: int = 0
    doubt_s: float = 0.0

    def up(self, now: float) -> bool:
        """Say whether the source may be asked without any doubt about it."""
        return not self.backoff_s and now >= self.asked_off_until

    def half_open(self, now: float) -> bool:
        """Say whether its back-off is over and nobody is trying it yet."""
        return bool(self.backoff_s) and now >= self.free_at and not self.probing

    def desperate(self, now: float) -> bool:
        """Say whether it may be asked where nobody else is left."""
        return now >= max(self.ejected_at + BACKOFF_FIRST_S, self.asked_off_until) and not self.probing

    def expected_s(self, size_bytes: int) -> float:
        """Estimate how long ``size_bytes`` take from here; unproven sources look ordinary."""
        return self.ttfb_s + size_bytes / (self.rate_bytes_s or _UNKNOWN_RATE_BYTES_S)

    def cost(self, size_bytes: int) -> float:
        """Return the peak-EWMA cost that power of two choices compares: time, times who waits already.

        An unproven source with nothing to do costs nothing, so that it is tried.
        """
        if not self.inflight and not self.ttfb_s and not self.rate_bytes_s:
            return 0.0
        return self.expected_s(size_bytes) * (self.inflight + 1)

    def learned(self, size_bytes: int, took_s: float, ttfb_s: float | None, gap_s: float = 0.0) -> None:
        """Learn from a whole block; ``ttfb_s`` is None where the first byte was not seen.

        ``gap_s`` is the longest pause between its bytes.
        """
        self.gap_s = gap_s if gap_s > self.gap_s else _mix(self.gap_s, gap_s)
        if ttfb_s is None:
            ttfb_s = took_s if size_bytes < _LATENCY_BYTES else min(self.ttfb_s, took_s / 2)
        self.ttfb_s = ttfb_s if ttfb_s > self.ttfb_s else _mix(self.ttfb_s, ttfb_s)
        if size_bytes >= _LATENCY_BYTES:
            rate = size_bytes / max(took_s - ttfb_s, 1e-3)
            self.rate_bytes_s = _mix(self.rate_bytes_s, rate) if self.rate_bytes_s else rate

    def answered(self, size_bytes: int) -> None:
        """An answer of ``size_bytes``, a refusal too, ends back-off: the source is alive.

        One that was too slow for a block is trusted again with an answer of about such a size, or with many
        smaller ones: the sound of a film goes on coming from where its picture does not.
        """
        self.slow_bytes = 0 if 2 * size_bytes >= self.slow_bytes else self.slow_bytes // 2
        if not self.slow_bytes:
            self.backoff_s = self.doubt_s = 0.0
            self.strikes = 0

    def redeemed(self) -> None:
        """End back-off after an answer that came too late to be of use: the next failure goes on doubling."""
        self.doubt_s = max(self.backoff_s, self.doubt_s)
        self.backoff_s, self.strikes, self.slow_bytes = 0.0, 0, 0

    def failed(
        self, now: float, since: float, probe_s: float, retry_after_s: float = 0.0, slow_bytes: int = 0
    ) -> None:
        """Eject the source, for ``probe_s`` at most; flights begun before the last ejection are no news.

        ``slow_bytes`` is the size of the block for which it was too slow, 0 where it did not answer at all.
        """
        self.asked_off_until = max(self.asked_off_until, now + min(retry_after_s, RETRY_AFTER_LIMIT_S))
        self.free_at = max(self.free_at, self.asked_off_until)
        if since < self.ejected_at:
            return
        self.backoff_s = min(max(2 * max(self.backoff_s, self.doubt_s), BACKOFF_FIRST_S), probe_s)
        self.ejected_at = now
        self.free_at = max(now + self.backoff_s, self.asked_off_until)
        self.strikes, self.slow_bytes = 0, slow_bytes

    def struck(self) -> bool:
        """Count one late answer; True where it is one too many in a row."""
        self.strikes += 1
        return self.strikes >= STRIKES


def _mix(old: float, new: float) -> float:
    return old + _EWMA_NEW * (new - old)
