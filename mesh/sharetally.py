"""What sharing with neighbours tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class ShareTally:
    """Counts bytes, refusals and partners cut, over all titles."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count on ``registry``."""
        self._bytes = Counter(
            "farcast_mesh_shared_bytes", "Bytes of titles shared, by direction.", ["way"], registry=registry
        )
        self._refused = Counter(
            "farcast_mesh_share_refusals", "Shares refused, here and there, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._cut = Counter(
            "farcast_mesh_share_cuts", "Neighbours a share was ended with, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._links = Gauge("farcast_mesh_share_links", "Connections that share now.", registry=registry)
        self._sent, self._received = (self._bytes.labels(way) for way in ("sent", "received"))

    def sent(self, size_bytes: int) -> None:
        """Count what was handed to a neighbour."""
        self._sent.inc(size_bytes)

    def received(self, size_bytes: int) -> None:
        """Count what a neighbour sent."""
        self._received.inc(size_bytes)

    def refused(self, reason: str) -> None:
        """Count a refusal, ours or a neighbour's."""
        self._refused.labels(reason).inc()

    def cut(self, reason: str) -> None:
        """Count a neighbour that this box has no more to do with in a share."""
        self._cut.labels(reason).inc()

    def links(self, count: Callable[[], int]) -> None:
        """Read how many links there are from ``count``."""
        self._links.set_function(lambda: float(count()))
