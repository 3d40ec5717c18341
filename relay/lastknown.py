"""The catalog as this relay knows it last: served while the origin is away, and counted then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..node.catalog.replica import Replica
from ..protocol.catalog import Catalog

T = TypeVar("T")

_KINDS = ("checkpoint", "directory", "beacons")


class LastKnown:
    """The heads a relay answers with (``node/catalog/replica.py``, ``Heads``)."""

    def __init__(
        self,
        replica: Replica,
        behind: Callable[[], bool],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        """``behind`` says that the origin did not answer when it was asked last."""
        self._replica = replica
        self._behind = behind
        self._clock_ms = clock_ms
        self._stale = Counter(
            "farcast_relay_stale_answers",
            "Catalog answers given while the origin did not answer.",
            ["kind"],
            registry=registry,
        )
        for kind in _KINDS:
            self._stale.labels(kind)
        Gauge(
            "farcast_relay_checkpoint_age_seconds",
            "Since the origin signed the checkpoint held here; 0 before the first.",
            registry=registry,
        ).set_function(self.age_s)

    @property
    def catalog(self) -> Catalog:
        """The entries and what they add up to."""
        return self._replica.catalog

    def checkpoint(self) -> bytes | None:
        """Return the newest signed checkpoint note."""
        return self._counted("checkpoint", self._replica.checkpoint())

    def directory(self) -> bytes | None:
        """Return the newest signed relay directory."""
        return self._counted("directory", self._replica.directory())

    def beacons(self) -> list[bytes]:
        """Return the newest signed beacons, oldest first."""
        return self._counted("beacons", self._replica.beacons())

    def age_s(self) -> float:
        """Return how long ago the origin signed the checkpoint held here; 0 before the first."""
        signed_ms = self._replica.signed_ms
        return max(0.0, (self._clock_ms() - signed_ms) / 1_000) if signed_ms else 0.0

    def facts(self) -> dict[str, object]:
        """Return what a status shows of it."""
        return {
            "entries": self.catalog.size,
            "checkpoint_age_s": round(self.age_s()),
            "stale": self._behind(),
        }

    def _counted(self, kind: str, answer: T) -> T:
        if answer and self._behind():
            self._stale.labels(kind).inc()
        return answer
