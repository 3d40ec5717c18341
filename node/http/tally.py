"""What the servers count, as plain integers on the hot path and as Prometheus metrics when scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .governor import Governor
    from .hotset import HotSet

REASON_LIMIT = 64
"""Distinct refusal reasons kept; more than these can only be a mistake, and count as ``other``."""


class Tally:
    """The counts of one carrier: ``tcp``, ``tls``, ``quic`` or ``local``."""

    __slots__ = ("classes", "connections", "sent_bytes")

    def __init__(self) -> None:
        """Start at nothing."""
        self.classes = [0] * 6
        self.sent_bytes = 0
        self.connections: Callable[[], int] = lambda: 0

    def answered(self, status: int) -> None:
        """Count one answer by the first digit of its status."""
        self.classes[class_of(status)] += 1


def class_of(status: int) -> int:
    """Return the first digit of a status; what none may be counts as the server's error."""
    return status // 100 if 100 <= status < 600 else 5  # noqa: PLR2004


class HttpMetrics(Collector):
    """Counts of every carrier and of every refusal by reason.

    Incrementing a labelled Prometheus child takes a lock and a microsecond; a collector that reads
    integers costs the byte path nothing.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Report to ``registry``."""
        self._carriers: dict[str, Tally] = {}
        self._refusals: Counter[str] = Counter()
        self._hot: HotSet | None = None
        self._governor: Governor | None = None
        registry.register(self)

    def carrier(self, name: str) -> Tally:
        """Return the tally of carrier ``name``."""
        return self._carriers.setdefault(name, Tally())

    def sent_bytes(self) -> int:
        """Return the body bytes that left by all carriers but the loopback one."""
        return sum(tally.sent_bytes for name, tally in self._carriers.items() if name != "local")

    def refused(self, reason: str, count: int = 1) -> None:
        """Count a refusal, or ``count`` of them."""
        known = reason in self._refusals or len(self._refusals) < REASON_LIMIT
        self._refusals[reason if known else "other"] += count

    def watch(self, governor: Governor, hot: HotSet | None) -> None:
        """Report what ``governor`` counts and what ``hot`` holds, too."""
        self._governor = governor
        self._hot = hot

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families of this moment."""
        requests = CounterMetricFamily(
            "farcast_node_http_requests", "Answers by status class.", labels=("carrier", "status_class")
        )
        sent = CounterMetricFamily("farcast_node_http_sent_bytes", "Body bytes sent.", labels=("carrier",))
        connections = GaugeMetricFamily(
            "farcast_node_http_connections", "Open connections.", labels=("carrier",)
        )
        refusals = CounterMetricFamily(
            "farcast_node_http_refusals", "Requests and connections refused.", labels=("reason",)
        )
        for name, tally in self._carriers.items():
            for first, count in enumerate(tally.classes):
                if count:
                    requests.add_metric((name, f"{first}xx"), count)
            sent.add_metric((name,), tally.sent_bytes)
            connections.add_metric((name,), tally.connections())
        for reason, count in self._refusals.items():
            refusals.add_metric((reason,), count)
        return (requests, sent, connections, refusals, *self._uploads(), *self._ram())

    def _uploads(self) -> Iterable[Metric]:
        governor = self._governor
        if governor is not None:
            uploads = CounterMetricFamily(
                "farcast_node_upload_bytes", "Body bytes sent, to the WAN and to the LAN.", labels=("side",)
            )
            uploads.add_metric(("wan",), governor.wan.bytes)
            uploads.add_metric(("lan",), governor.lan.bytes)
            yield uploads

    def _ram(self) -> Iterable[Metric]:
        hot = self._hot
        if hot is not None:
            yield GaugeMetricFamily("farcast_node_ram_bytes", "Bytes of blocks in memory.", hot.held_bytes)
            yield CounterMetricFamily("farcast_node_ram_hits", "Blocks sent from memory.", hot.hits)
            yield CounterMetricFamily("farcast_node_ram_misses", "Blocks sent from files.", hot.misses)
