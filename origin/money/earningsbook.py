"""The earnings book: what everybody earns this month so far and earned in settled ones, kept at hand.

The open month is brought up to date when something came in or was booked (``running.py``); a settled
one is computed once. Every command, page and metric reads it here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from ...protocol.errors import RefusedError, UsageError
from ...protocol.identity import peer_id
from .closing import Closing
from .earnings import Earnings, earnings
from .ledger import Ledger
from .schedule import month_at

KEPT_MONTHS = 4
MAX_LABELLED = 500
"""Relays, and payees, with a line of their own in the metrics; the others are summed as ``other``."""
OTHER = "other"
PATIENCE = 5
"""Bringing the metrics up to date rests so many times as long as it took, at most ``LATEST_S``."""
LATEST_S = 30.0

Mark = tuple[object, ...]
"""What the open month's earnings are computed from; the same mark, the same earnings."""


class _Kept(NamedTuple):
    mark: Mark
    earnings: Earnings


class EarningsBook:
    """The earnings of one origin; every method blocks and is thread-safe."""

    def __init__(
        self,
        closing: Callable[[], Closing],
        ledger: Callable[[], Ledger],
        log_size: Callable[[], int],
        first_keys: Callable[[], Mapping[bytes, bytes]],
        registry: CollectorRegistry,
    ) -> None:
        """Compute by ``closing``, again when ``log_size`` or the ``ledger`` has grown."""
        self._closing = closing
        self._ledger = ledger
        self._log_size = log_size
        self._first_keys = first_keys
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._shown: list[tuple[str, Earnings]] = []
        self._refreshed_s = -LATEST_S
        self._took_s = 0.0
        registry.register(self)

    def of(self, month: str, now_ms: int, *, wait: bool = True) -> Earnings:
        """Return a month's earnings; ``wait`` for them where they are being computed.

        Raises:
            UsageError: for a month to come.
            RefusedError: 429 ``busy`` where somebody else's are being computed and nobody waits.

        """
        mark = self._mark(month)
        kept = self._kept.get(month)
        if kept is not None and kept.mark == mark:
            return kept.earnings
        if not self._lock.acquire(blocking=wait):
            message = "earnings are being computed; ask again in a moment"
            raise RefusedError(message, status=429, retry_after_s=5, reason="busy")
        try:
            kept = self._kept.get(month)
            if kept is None or kept.mark != mark:
                look = self._closing().look(month, now_ms)
                kept = _Kept(mark, earnings(look, self._first_keys()))
                self._kept[month] = kept
                while len(self._kept) > KEPT_MONTHS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(month)
            return kept.earnings
        finally:
            self._lock.release()

    def newest_settled(self) -> str:
        """Return the newest settled month, empty where there is none."""
        return self._ledger().last_settled()

    def months(self, now_ms: int) -> list[str]:
        """Return the months people ask for first: this one, and the newest settled one."""
        return list(dict.fromkeys(month for month in (month_at(now_ms), self.newest_settled()) if month))

    def refresh(self, now_ms: int) -> None:
        """Bring what the metrics show up to date; called often, it does so as often as it is cheap."""
        begun_s = time.monotonic()
        if self._log_size() == 0 or begun_s - self._refreshed_s < min(LATEST_S, PATIENCE * self._took_s):
            return  # nothing was ever watched, or enough was done
        shown: list[tuple[str, Earnings]] = []
        for month in self.months(now_ms):
            try:
                found = self.of(month, now_ms)
            except UsageError:
                continue  # a clock set back to before the ledger: nothing is provisional then
            shown.append(("settled" if found.settled else "provisional", found))
        self._shown = shown
        self._refreshed_s = time.monotonic()
        self._took_s = self._refreshed_s - begun_s

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as of the last ``refresh`` (``prometheus_client``'s collector interface)."""
        cents = GaugeMetricFamily(
            "farcast_origin_earnings_cents",
            "Earnings of this month so far and of the newest settled one, by relay and payee.",
            labels=["kind", "id", "state"],
        )
        held = GaugeMetricFamily(
            "farcast_origin_earnings_held_cents", "What of it is held, by payee.", labels=["id", "state"]
        )
        as_of = GaugeMetricFamily(
            "farcast_origin_earnings_timestamp_seconds", "As of when earnings are.", labels=["state"]
        )
        for state, found in self._shown:
            relays = {peer_id(key): item.cents for key, item in found.relays.items()}
            payees = {name: item.paid_cents for name, item in found.payees.items()}
            escrow = {name: item.held_cents for name, item in found.payees.items()}
            for kind, sums in (("relay", relays), ("payee", payees)):
                for name, value in _largest(sums).items():
                    cents.add_metric([kind, name, state], value)
            for name, value in _largest(escrow).items():
                held.add_metric([name, state], value)
            as_of.add_metric([state], found.as_of_ms / 1_000)
        took = GaugeMetricFamily(
            "farcast_origin_earnings_refresh_seconds", "How long bringing these up to date took last."
        )
        took.add_metric([], self._took_s)
        yield from (cents, held, as_of, took)

    def _mark(self, month: str) -> Mark:
        settled = self._ledger().settled_as(month)
        if settled:
            return (settled,)
        return (self._log_size(), self._ledger().head()[0], len(self._first_keys()))


def _largest(sums: Mapping[str, int]) -> dict[str, int]:
    """Return the largest sums by name, and the others together."""
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ranked[:MAX_LABELLED])
    if len(ranked) > MAX_LABELLED:
        found[OTHER] = sum(value for _, value in ranked[MAX_LABELLED:])
    return found
