"""A house that pays: real books, files and provider client, and a person who confirms what is by hand.

``python payhouse.py FOLDER URL NOW_MS`` does the month's run in a process that can be killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from prometheus_client import CollectorRegistry

from farcast.origin.money import bookings
from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger
from farcast.origin.payout.creditfile import Debtor
from farcast.origin.payout.manual import ByHand
from farcast.origin.payout.method import Method
from farcast.origin.payout.order import HOUR_MS, Order
from farcast.origin.payout.orderbook import OrderBook
from farcast.origin.payout.paymaster import Paymaster, PayRules
from farcast.origin.payout.payouttally import PayoutTally
from farcast.origin.payout.payservice import PayService
from farcast.origin.payout.payservice import Place as ProviderPlace
from farcast.origin.payout.sepa import SepaFiles
from farcast.origin.payout.terms import Terms
from farcast.protocol.errors import UsageError

T0 = 1_781_481_600_000
"""2026-06-15, when payouts run though no month was ever settled."""
IBAN = "DE89370400440532013000"
TIMEOUT_S = 0.15
RATES = {"DE": 1_500, "US": 3_000}
OWED = {"ada": 10_000, "ben": 7_777, "cyd": 5_000, "dan": 6_001, "eve": 4_999, "fay": 123_457, "gil": 9_001}
TERMS: Mapping[str, Terms] = {
    "ada": Terms("ada", "Ada", "http", "DE", account="acct-ada"),
    "ben": Terms("ben", "Ben", "sepa", "DE", IBAN),
    "cyd": Terms("cyd", "Cyd", "manual"),
    "dan": Terms("dan", "Dan", "http", "US", account="closed"),
    "eve": Terms("eve", "Eve", "http", "DE", account="acct-eve"),
    "fay": Terms("fay", "Fay", "http", "US", account="acct-fay"),
    "gil": Terms("gil", "Gil", "sepa", "", "NL91ABNA0417164300"),
}


class PayHouse:
    """Books at ``place`` with ``OWED`` in them, files in ``folder``, a provider at ``url``."""

    def __init__(self, place: Place, folder: Path, url: str, now_ms: int = T0) -> None:
        self.now_ms = now_ms
        self.url = url
        self.folder = folder
        self.taken: list[str] = []
        self.ledger = Ledger(place, "EUR")
        with self.ledger.transaction() as tx:
            for payee, cents in OWED.items():
                booking = bookings.collaboration(cents, {payee: 10_000})
                tx.post(booking.kind, payee.encode(), T0 - 1, booking.lines, booking.memo())
        self.book = OrderBook(self.ledger, b"origin")
        self.methods: dict[str, Method] = {
            "sepa": SepaFiles(folder, Debtor("Farcast", IBAN, ""), "EUR"),
            "http": PayService(ProviderPlace(url, ""), "EUR", TIMEOUT_S),
            "manual": ByHand(),
        }
        self.terms = dict(TERMS)
        self.paymaster = Paymaster(
            self.book,
            lambda: self.terms,
            self.methods,
            PayRules(5_000, RATES, 5),
            PayoutTally(CollectorRegistry()),
        )

    def clock_ms(self) -> int:
        """Return the house's time."""
        return self.now_ms

    def pay(self) -> None:
        """Do the month's run."""
        self.paymaster.monthly(self.clock_ms)

    def finish(self, move: Callable[[int], None]) -> None:
        """Let hours pass until every order has ended; a person confirms what only a person knows."""
        self.pay()
        for _ in range(40):
            for order in self.open_orders():
                if order.method in ("sepa", "manual") and order.state == "sent":
                    self.paymaster.decide(order.key, self.now_ms, paid=True)
                if order.method == "http" and order.state == "unknown":
                    with suppress(UsageError):  # until the provider has forgotten it, it is the one to ask
                        self.paymaster.decide(order.key, self.now_ms, paid=order.key in str(self._paid()))
            if not self.open_orders():
                return
            self.now_ms += HOUR_MS // 2
            move(HOUR_MS // 2)
            self.paymaster.drain(self.clock_ms)
        raise AssertionError(self.open_orders())

    def take_files(self) -> None:
        """Take what has its name to the bank, as an operator does as soon as it is there."""
        for path in sorted(self.folder.glob("[!.]*")):
            self.taken.append(path.read_text())
            path.unlink()

    def _paid(self) -> object:
        return call(self.url, "/_books")["paid"]

    def open_orders(self) -> list[Order]:
        """Return what has not ended."""
        return [order for order in self.book.orders() if order.open]

    def ended(self) -> dict[str, tuple[str, int, int, int]]:
        """Return the payments that were made, by key: the failed ones left nothing."""
        return {
            order.key: (order.payee, order.gross_cents, order.tax_cents, order.net_cents)
            for order in self.book.orders()
            if order.state != "failed"
        }


def call(url: str, path: str, body: object | None = None) -> dict[str, object]:
    """Ask the bank something beside its business."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url + path, data=data)  # noqa: S310 - loopback
    with urlopen(request, timeout=5) as reply:  # noqa: S310 - likewise
        found: dict[str, object] = json.loads(reply.read())
    return found


@contextmanager
def bank_process() -> Generator[str]:
    """Run the bank; its address."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "paybank.py")], stdout=subprocess.PIPE, text=True
    ) as bank:
        try:
            assert bank.stdout is not None
            yield f"http://127.0.0.1:{int(bank.stdout.readline())}"
        finally:
            bank.kill()


def fates(url: str, *wanted: str) -> None:
    """Say what happens to the next requests."""
    call(url, "/_fates", {"fates": wanted, "late_s": 2 * TIMEOUT_S})


def paid(url: str) -> list[tuple[str, int]]:
    """Return what the bank has paid, by key."""
    books: Any = call(url, "/_books")["paid"]
    return [(key, cents) for key, cents, _ in books]


def mover(url: str) -> Callable[[int], None]:
    """Return what lets hours pass at the bank."""

    def move(ms: int) -> None:
        call(url, "/_clock", {"ms": ms})

    return move


def check_bank(house: PayHouse) -> None:
    """Check that the bank paid each key once, and what the books say."""
    made = paid(house.url)
    assert len({key for key, _ in made}) == len(made), "a key was paid twice"
    by_http = {key: row[3] for key, row in house.ended().items() if TERMS[row[0]].method == "http"}
    assert dict(made) == by_http, "the bank paid something else than the books say"


if __name__ == "__main__":
    home = Path(sys.argv[1])
    PayHouse(home / "ledger.db", home / "payouts", sys.argv[2], int(sys.argv[3])).pay()
