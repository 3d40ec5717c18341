"""The payout desk: what the origin's commands and its own clock ask of payouts, as plain values.

Nothing of the books is opened before it is needed, and a payee's account numbers leave it masked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from ...node.settings import Settings
from ...protocol.errors import UsageError
from ..accounts import Accounts
from ..action import Actions, Result
from ..money.treasury import Treasury
from .creditfile import Debtor
from .manual import ByHand
from .method import Methods
from .order import REASON_CHARS, Order
from .orderbook import OrderBook
from .payees import Payees, Wishes
from .paymaster import Paymaster, PayRules, Planned
from .payouttally import STATES, PayoutTally
from .payservice import PayService, Place
from .sepa import SUFFIX, SepaFiles
from .statusfile import SIZE_LIMIT_BYTES, Word, read_status
from .terms import Standing

FOLDER = "payouts"
FILTERS = ("accrued", "eligible", *STATES)


class PayoutDesk:
    """Payouts of the origin at ``home``; ``origin`` is its key. Every method blocks."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        accounts: Accounts,
        treasury: Treasury,
        origin: bytes,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._treasury = treasury
        self._origin = origin
        self._clock_ms = clock_ms
        self._folder = home / FOLDER
        self._methods = _methods(self._folder, settings)
        self.payees = Payees(accounts, frozenset(self._methods))
        money = settings.money
        self._rules = PayRules(money.payout_min_cents, money.withholding, money.payout_day)
        self._tally = PayoutTally(registry)
        self._opening = threading.Lock()
        self._paymaster: Paymaster | None = None

    @property
    def actions(self) -> Actions:
        """What the office does by these names; it runs payouts through the money's desk."""
        return {
            "payout_list": self.overview,
            "payout_confirm": self.confirm,
            "payout_fail": self.fail,
            "payout_show": self.show,
            "payout_read": self.read,
        }

    @property
    def paymaster(self) -> Paymaster:
        """Who pays; the books are opened for it."""
        with self._opening:
            if self._paymaster is None:
                book = OrderBook(self._treasury.opened_ledger(), self._origin)
                self._paymaster = Paymaster(book, self.payees.all, self._methods, self._rules, self._tally)
            return self._paymaster

    def tend(self) -> None:
        """Do the month's run when it is due, and drain what waits; for the running origin, once a minute."""
        if self._treasury.begun:
            self.monthly()
            self.paymaster.drain(self._clock_ms)

    def monthly(self) -> Result | None:
        """Do this month's run if it is due; None where it is done already or not due.

        Harmless to call often and by several: a scheduler calls it after each settlement.
        """
        ordered = self.paymaster.monthly(self._clock_ms)
        return None if ordered is None else self._ran(ordered, dry_run=False)

    def run(self, *, dry_run: bool = False) -> Result:
        """Order all that is due and send it, or say what would be ordered."""
        ordered = self.paymaster.plan() if dry_run else self.paymaster.run(self._clock_ms)
        return self._ran(ordered, dry_run=dry_run)

    def overview(self, state: str = "") -> Result:
        """List what is owed and what was ordered, perhaps in one state alone."""
        if state and state not in FILTERS:
            raise UsageError(f"--state is one of {', '.join(FILTERS)}, not {state!r}")
        waits = [_standing(one) for one in self.paymaster.standings() if state in ("", one.due)]
        orders = [_order(one) for one in self.paymaster.book.orders(state)] if state in ("", *STATES) else []
        return {"owed": waits, "payouts": orders, "troubles": self._troubles()}

    def confirm(self, payout: str) -> Result:
        """Take a person's word that a payout arrived."""
        return _order(self.paymaster.decide(payout, self._clock_ms(), paid=True))

    def fail(self, payout: str, reason: str) -> Result:
        """Take a person's word that a payout never will; what it took is owed again."""
        if not reason.strip() or len(reason) > REASON_CHARS or not reason.isprintable():
            raise UsageError(f"--reason is one line of 1 to {REASON_CHARS} characters")
        return _order(self.paymaster.decide(payout, self._clock_ms(), paid=False, reason=reason))

    def read(self, file: str) -> Result:
        """Take a bank's word from its status report or notification; what it says twice changes nothing."""
        path = Path(file)
        try:
            with path.open("rb") as opened:
                data = opened.read(SIZE_LIMIT_BYTES + 1)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > SIZE_LIMIT_BYTES:
            raise UsageError(f"{path} is larger than {SIZE_LIMIT_BYTES} bytes; give the bank's file alone")
        told = [self._told(word) for word in read_status(data)]
        rows = [row for part in told for row in part]
        return {"file": file, "payouts": rows, "ignored": [row for row in rows if row["why"]]}

    def _told(self, word: Word) -> list[Result]:
        """Take what a bank says of one transfer, or of all of a file."""
        book = self.paymaster.book
        one = book.named(word.key) if word.key else None
        orders = [one] if one else book.together(word.message + SUFFIX) if not word.key else []
        if not orders:
            return [{"id": word.key or word.message, "state": "", "why": "no payout has this id"}]
        rows: list[Result] = []
        for order in orders:
            why, state = "", order.state
            if order.method != "sepa":
                why = f"it is paid by {order.method}"
            elif word.cents not in (None, order.net_cents):
                why = f"the bank says {word.cents} cents, the books {order.net_cents}"
            else:
                try:
                    now_ms, reason = self._clock_ms(), word.reason
                    state = self.paymaster.decide(order.key, now_ms, paid=word.paid, reason=reason).state
                except UsageError as error:
                    why = str(error)
            rows.append({"id": order.key, "state": state, "why": why})
        return rows

    def show(self, payout: str) -> Result:
        """Show a payout and what happened to it."""
        order, events = self.paymaster.show(payout)
        terms = self.payees.all().get(order.payee)
        return {
            **_order(order),
            "to": terms.facts() if terms else None,
            "events": [
                {"at": _instant(at_ms), "state": state, "attempt": attempt, "reason": reason}
                for at_ms, state, attempt, reason in events
            ],
        }

    def put_payee(self, payee: str, wishes: Wishes, *, new: bool) -> Result:
        """Add a payee or change their terms; what comes back is masked."""
        facts = self.payees.put(payee, wishes, self._clock_ms(), new=new).facts()
        return {"payee": facts.pop("id"), **facts}

    def list_payees(self) -> Result:
        """List the payees, masked."""
        return {"payees": [terms.facts() for terms in self.payees.all().values()]}

    def _ran(self, ordered: list[Planned], *, dry_run: bool) -> Result:
        orders = {} if dry_run else {one.key: self.paymaster.book.find(one.key) for one in ordered}
        rows: list[Result] = []
        for one in ordered:
            order = orders.get(one.key)
            fields = {"id": one.key, "state": order.state if order else "eligible", **one._asdict()}
            fields.pop("key")
            rows.append({**fields, "reference": order.reference if order else ""})
        return {
            "dry_run": dry_run,
            "payouts": rows,
            "net_cents": sum(one.net_cents for one in ordered),
            "tax_cents": sum(one.tax_cents for one in ordered),
            "folder": str(self._folder),
            "troubles": self._troubles(),
        }

    def _troubles(self) -> list[Result]:
        """Say which methods cannot pay now, of those that payees have."""
        used = {terms.method for terms in self.payees.all().values()}
        found = [(name, method.trouble()) for name, method in self._methods.items() if name in used]
        return [{"method": name, "trouble": trouble} for name, trouble in found if trouble]


def _methods(folder: Path, settings: Settings) -> Methods:
    """Return the ways to pay, by name: a new one is one line here."""
    payout, currency = settings.payout, settings.money.currency
    return {
        "sepa": SepaFiles(folder, Debtor(payout.name, payout.iban, payout.bic), currency),
        "http": PayService(Place(payout.url, payout.key), currency),
        "manual": ByHand(),
    }


def _standing(one: Standing) -> Result:
    return {"payee": one.payee, "cents": one.owed_cents, "state": one.due, "reason": one.why}


def _order(order: Order) -> Result:
    return {
        "id": order.key,
        "payee": order.payee,
        "method": order.method,
        "region": order.region,
        "state": order.state,
        "gross_cents": order.gross_cents,
        "tax_cents": order.tax_cents,
        "net_cents": order.net_cents,
        "created": _instant(order.created_ms),
        "changed": _instant(order.changed_ms),
        "next": _instant(order.due_ms),
        "attempts": order.attempt,
        "reference": order.reference,
        "reason": order.reason,
    }


def _instant(at_ms: int) -> str | None:
    """Return a time as text, None where there is none."""
    return f"{datetime.fromtimestamp(at_ms // 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}" if at_ms else None
