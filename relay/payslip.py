"""The payslip: what the origin says this relay earns, kept for status, page and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from ..node.earnings import EarningsAsker, money
from ..protocol.earnings import earnings_json

BUSY_S, IDLE_S = 60.0, 3_600.0
"""Between two questions while this relay serves, and while nobody uses it."""


class Payslip:
    """Asks the origin now and then by ``asker``; ``uses`` grows while the relay serves."""

    def __init__(self, asker: EarningsAsker, uses: Callable[[], int], registry: CollectorRegistry) -> None:
        self._asker = asker
        self._uses = uses
        self._seen = -1
        self._cents = Gauge(
            "farcast_relay_earnings_cents",
            "What the origin says this relay earns: this month so far, and in the newest settled one.",
            ["state"],
            registry=registry,
        )
        self._bytes = Gauge(
            "farcast_relay_earnings_acknowledged_bytes",
            "The bytes that this pay is for, as viewers signed and the origin acknowledged them.",
            ["state"],
            registry=registry,
        )

    def pause_s(self) -> float:
        """Return how long until the next question: until soon after use, else long."""
        before, self._seen = self._seen, self._uses()
        return BUSY_S if self._seen != before else IDLE_S

    async def look(self) -> None:
        """Ask the origin."""
        answer = await self._asker.ask()
        for month in answer.months:
            state = "settled" if month.settled else "provisional"
            self._cents.labels(state).set(sum(item.cents for item in month.relays))
            self._bytes.labels(state).set(1_000 * sum(item.kbytes for item in month.relays))

    def facts(self) -> dict[str, object] | None:
        """Return the newest answer as JSON; None before there was one."""
        return earnings_json(self._asker.last) if self._asker.last else None


def payslip_lines(found: dict[str, Any] | None) -> list[str]:
    """Return what a person reads of it, one line a month."""
    if found is None:
        return ["not known yet: the origin has not answered"]
    return [
        f"{money(row['cents'], found['currency'])} {month['state']} for {row['acknowledged_gb']:.3f} GB "
        f"in {month['month']}"
        for month in found["months"]
        for row in month["relays"]
    ]
