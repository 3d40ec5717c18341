"""How many pulses a spool holds, kept in memory so that no quota check counts rows."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge


class Tally(NamedTuple):
    """How many pulses are held, and how many bytes the foreign ones take."""

    own: int
    foreign: int
    foreign_bytes: int

    def moved(self, sign: int, pulse: bytes, *, own: bool) -> Tally:
        """Return the tally after one pulse came (1) or went (-1)."""
        if own:
            return self._replace(own=self.own + sign)
        size_bytes = self.foreign_bytes + sign * len(pulse)
        return self._replace(foreign=self.foreign + sign, foreign_bytes=size_bytes)


class Metrics:
    """What the spool tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pulses = Gauge(
            "farcast_node_spool_pulses", "Pulses waiting for an ack.", ["whose"], registry=registry
        )
        self.bytes = Gauge("farcast_node_spool_foreign_bytes", "Bytes of foreign pulses.", registry=registry)
        self.settled = Counter(
            "farcast_node_spool_settled_pulses", "Pulses an ack let go.", registry=registry
        )
        self.expired = Counter(
            "farcast_node_spool_expired_pulses", "Foreign pulses too old to wait on.", registry=registry
        )

    def show(self, tally: Tally) -> None:
        """Set the gauges."""
        self.pulses.labels("own").set(tally.own)
        self.pulses.labels("foreign").set(tally.foreign)
        self.bytes.set(tally.foreign_bytes)
