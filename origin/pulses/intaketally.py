"""The intake's tally: what it tells Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from .admission import code_of
from .frame import DUPLICATE, PENDING, STORED, Seals

PATHS = ("relay", "mesh", "direct")
CHARGES = ("bad_signature",)


class Metrics:
    """Gauges and counters of the intake; no relay, viewer or title is named."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "farcast_origin_pulses_accepted", "Pulses stored, by the way they first came.", ["path"],
            registry=registry,
        )  # fmt: skip
        self.duplicates = Counter(
            "farcast_origin_pulses_duplicate", "Copies of pulses stored before.", registry=registry
        )
        self.rejected = Counter(
            "farcast_origin_pulses_rejected", "Pulses not stored or not alone under their number, by reason.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.entries = Gauge(
            "farcast_origin_intake_log_entries", "Entries in the intake log.", registry=registry
        )
        self.torn = Gauge(
            "farcast_origin_intake_torn_bytes", "Bytes of a torn frame cut at the last start.",
            registry=registry,
        )  # fmt: skip
        self.seals = Counter(
            "farcast_origin_seal_records", "Sessions closed with a seal record.", registry=registry
        )
        self.unsealed = Gauge(
            "farcast_origin_unsealed_sessions", "Tickets with a session not closed yet.", registry=registry
        )
        self.open = Gauge(
            "farcast_origin_unsealed_pulses", "Pulses of sessions not closed yet.", registry=registry
        )
        self.lag = Gauge(
            "farcast_origin_seal_lag_seconds", "How long the most silent open session has been silent.",
            registry=registry,
        )  # fmt: skip
        self.charged = Gauge(
            "farcast_origin_charged_carriers", "Enrolled relays that brought pulses with a wrong signature.",
            ["reason"], registry=registry,
        )  # fmt: skip
        for path in PATHS:
            self.accepted.labels(path)
        for reason in CHARGES:
            self.charged.labels(reason)

    def measure(self, verdicts: list[str], path: str) -> None:
        """Count the verdicts on one arrival."""
        for verdict, count in Tally(verdicts).items():
            if verdict in (STORED, PENDING):
                self.accepted.labels(path).inc(count)
            elif verdict == DUPLICATE:
                self.duplicates.inc(count)
            else:
                self.rejected.labels(code_of(verdict)).inc(count)

    def sealed(self, found: Seals) -> None:
        """Count what a seal found."""
        self.seals.inc(len(found.records))
        failed = sum(len(bodies.names) for bodies in found.failed)
        if failed:
            self.rejected.labels("bad_signature").inc(failed)

    def show(self, sessions: int, pulses: int, lag_ms: int, charged: Mapping[bytes, int]) -> None:
        """Set what is open now."""
        self.unsealed.set(sessions)
        self.open.set(pulses)
        self.lag.set(lag_ms / 1_000)
        self.charged.labels("bad_signature").set(len(charged))
