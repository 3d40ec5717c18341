"""The contract as Prometheus sees it: every number of ``farcast relay status`` under the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .contract import Contract

_STATES = ("serving", "paused", "hibernating")


class PublisherShare(NamedTuple):
    """What a relay holds of a publisher (his peer id), and may; ``budget_bytes`` None is no bound."""

    publisher: str
    held_bytes: int
    budget_bytes: int | None


class ContractMetrics(Collector):
    """Reads the contract when scraped."""

    def __init__(self, contract: Contract, registry: CollectorRegistry) -> None:
        """Report to ``registry``."""
        self._contract = contract
        self.publishers: Callable[[], list[PublisherShare]] = list
        """Returns what is held of each publisher that the contract bounds."""
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families of this moment."""
        contract = self._contract
        volume, rates, state = contract.volume, contract.rates(), contract.state
        left = volume.remaining_bytes
        yield _gauge("limit_bytes", "The month's volume, 0 for no limit.", contract.table.volume_bytes)
        yield _gauge("used_bytes", "What of it is used, as the provider counts.", volume.used_bytes)
        yield _gauge(
            "remaining_bytes", "What of it is left, +Inf without a limit.", inf if left is None else left
        )
        yield _gauge("resets_timestamp_seconds", "When the next month begins.", volume.usage.end_ms / 1_000)
        yield _gauge(
            "wakes_timestamp_seconds",
            "When this month's serving began or begins.",
            volume.usage.wake_ms / 1_000,
        )
        yield _gauge("quiet", "1 in a quiet hour.", int(contract.quiet()))
        month = GaugeMetricFamily(
            "farcast_relay_contract_month_bytes", "Internet traffic of this month.", labels=("direction",)
        )
        month.add_metric(("up",), volume.usage.up_bytes)
        month.add_metric(("down",), volume.usage.down_bytes)
        yield month
        limits = GaugeMetricFamily(
            "farcast_relay_contract_rate_bytes_per_second",
            "The rate limit of this hour, 0 for none.",
            labels=("direction",),
        )
        limits.add_metric(("up",), rates.up_bps / 8)
        limits.add_metric(("down",), rates.down_bps / 8)
        yield limits
        states = GaugeMetricFamily(
            "farcast_relay_contract_state", "1 for the state the relay is in.", labels=("state",)
        )
        for name in _STATES:
            states.add_metric((name,), int(name == state))
        yield states
        table = contract.table
        clients = GaugeMetricFamily(
            "farcast_relay_contract_connections",
            "Most connections at once; of a client, 0 for no limit.",
            labels=("of",),
        )
        clients.add_metric(("all",), table.connections)
        clients.add_metric(("client",), table.client_connections)
        yield clients
        yield _gauge("client_requests_per_second", "Of one client, 0 for no limit.", table.client_requests_s)
        held = GaugeMetricFamily(
            "farcast_relay_contract_publisher_bytes",
            "What is held of a publisher, and his budget (+Inf for none).",
            labels=("publisher", "kind"),
        )
        for share in self.publishers():
            held.add_metric((share.publisher, "held"), share.held_bytes)
            held.add_metric(
                (share.publisher, "budget"), inf if share.budget_bytes is None else share.budget_bytes
            )
        yield held
        traffic = contract.traffic
        wan = CounterMetricFamily(
            "farcast_relay_contract_internet_bytes",
            "Internet traffic since the start.",
            labels=("direction",),
        )
        wan.add_metric(("up",), traffic.up_bytes)
        wan.add_metric(("down",), traffic.down_bytes)
        yield wan


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:  # noqa: A002 - Prometheus' word
    return GaugeMetricFamily(f"farcast_relay_contract_{name}", help, value=value)
