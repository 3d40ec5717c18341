"""What Prometheus hears of payouts: the same sums as the books, read from them after each change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .orderbook import Sum

STATES = ("reserved", "sent", "unknown", "paid", "failed")


class PayoutTally(Collector):
    """Shows the sums it was given last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sums: Sequence[Sum] = ()
        self._standings = {"accrued": 0, "eligible": 0}
        self._owed_cents = 0
        registry.register(self)

    def show(self, sums: Sequence[Sum], standings: dict[str, int], owed_cents: int) -> None:
        """Show these from now on; ``standings`` counts payees that no order is for yet."""
        self._sums, self._standings, self._owed_cents = sums, standings, owed_cents

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        counts = GaugeMetricFamily(
            "farcast_origin_payouts",
            "Payouts by state; accrued and eligible are payees with something owed.",
            labels=["state"],
        )
        for state, count in self._standings.items():
            counts.add_metric([state], count)
        for state in STATES:
            counts.add_metric([state], sum(one.payouts for one in self._sums if one.state == state))
        yield counts
        cents = CounterMetricFamily(
            "farcast_origin_payout_cents",
            "Cents of ended payouts as they left the books, tax included, by how they ended.",
            labels=["kind", "state"],
        )
        for one in self._sums:
            if one.state in ("paid", "failed"):
                cents.add_metric([one.method, one.state], one.gross_cents)
        yield cents
        owed = GaugeMetricFamily("farcast_origin_payable_cents", "Cents owed to payees, not ordered yet.")
        owed.add_metric([], self._owed_cents)
        yield owed
