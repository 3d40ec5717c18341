"""The money's desk: booking, settling and reporting, as the origin's commands ask for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...protocol.errors import UsageError
from ..accounts import Accounts
from ..action import Actions, Result
from ..payout.desk import PayoutDesk
from ..roster import Roster
from . import backpay
from .bookings import parse_split
from .treasury import Treasury


class MoneyDesk:
    """Books, settles and pays out through ``treasury`` and ``payouts``; every method blocks."""

    def __init__(
        self,
        treasury: Treasury,
        payouts: PayoutDesk,
        accounts: Accounts,
        roster: Roster,
        clock_ms: Callable[[], int],
    ) -> None:
        self.treasury = treasury
        self.payouts = payouts
        self.accounts = accounts
        self.roster = roster
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {
            "book": self.book,
            "ledger": self.ledger,
            "settle": self.settle,
            "report": self.report,
            "evidence": self.evidence,
            "payout_run": self.pay_out,
        }

    def book(
        self,
        kind: str,
        cents: int,
        account: str | None = None,
        note: str = "",
        month: str | None = None,
        payee: str = "",
        split: str = "",
    ) -> Result:
        """Book what came in or went out; of a refund ``cents`` is a transaction's number."""
        pseudonym = self.accounts.pseudonym(account) if account is not None else None
        known = {one.id for one in self.accounts.payees()}
        for name in [payee] if payee else parse_split(split) if split else []:
            if name not in known:
                message = (
                    f"this origin does not know {name!r}; add them with `farcast origin payee add {name}`"
                )
                raise UsageError(message, reason="unknown_payee")
        return self.treasury.book(
            kind, cents, pseudonym, note, self._clock_ms(), month, payee=payee, split=split
        )

    def ledger(self, account: str | None = None, after: int = 0) -> Result:
        """Show an account's entries, or all balances."""
        return self.treasury.entries(account, after)

    def settle(
        self,
        month: str | None = None,
        as_of: str | None = None,
        *,
        dry_run: bool = False,
        from_raw: bool = False,
    ) -> Result:
        """Settle a month."""
        found = self.treasury.settle(month, as_of, self._clock_ms(), dry_run=dry_run, from_raw=from_raw)
        if not dry_run:
            self.pay_back()
        return found

    def pay_back(self) -> dict[str, int]:
        """Move what stands for relays that named no payee to those they name now; returns cents by payee."""
        if not self.treasury.begun:
            return {}
        return backpay.move(self.treasury.ledger, self.roster.payees, self._clock_ms())

    def pay_out(self, *, dry_run: bool = False) -> Result:
        """Make the payouts that are due."""
        if not dry_run:
            self.pay_back()
        return self.payouts.run(dry_run=dry_run)

    def report(self, month: str | None = None) -> Result:
        """Write a settled month's report."""
        return self.treasury.report(month, self._clock_ms())

    def evidence(self, folder: str) -> Result:
        """Write evidence of what the intake log holds against anybody."""
        return self.treasury.evidence(Path(folder))
