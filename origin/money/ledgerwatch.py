"""The watch over the books: a full check every hour, in metrics and in one sentence."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from ...protocol.errors import LocalError
from .soundness import Soundness

LOOK_S = 3_600.0


class LedgerWatch:
    """Looks whether the books are sound; ``trouble`` says what the last look found wrong."""

    def __init__(self, check: Callable[[], Soundness | None], registry: CollectorRegistry) -> None:
        """``check`` is asked at each look; it blocks, and answers None where there are no books yet."""
        self._check = check
        self.trouble = ""
        self._transactions = Gauge(
            "farcast_origin_ledger_transactions", "Transactions in the ledger.", registry=registry
        )
        self._imbalance = Gauge(
            "farcast_origin_ledger_imbalance_cents",
            "Cents by which transactions or balances of the ledger are off; 0 in sound books.",
            registry=registry,
        )
        self._sound = Gauge(
            "farcast_origin_ledger_sound",
            "1 where the last full check of the ledger found nothing wrong.",
            registry=registry,
        )

    def look(self) -> None:
        """Check all books now."""
        try:
            found = self._check() or Soundness(0, 0, "")
        except LocalError as error:
            self.trouble = str(error)
            self._sound.set(0)
            return
        self.trouble = f"the ledger is broken: {found.fault}; restore a backup" if found.fault else ""
        self._transactions.set(found.transactions)
        self._imbalance.set(found.imbalance_cents)
        self._sound.set(0 if found.fault else 1)
