"""The ledger: double entry, append-only, hash-chained, whole cents of one currency.

It lives in ``ledger.db`` or in a PostgreSQL database; triggers refuse every change, and of all the
processes that write, one does at a time. Accounts: ``assets:received``, ``pool:revenue`` and
``pool:costs`` (open until settled), ``payable:<payee>``, ``relay:<peer id>`` (a relay that names no
payee), ``held:<payee>``, ``reserve``, ``carried``, ``carried:capped``, ``deficit``, ``fees``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ...protocol.errors import LocalError, UsageError
from ...protocol.identity import peer_id
from ...protocol.statement import Line, Statement, digest, encoded
from . import bookings
from .bookings import COSTS, REVENUE, Booking, payable
from .database import Place, Schema, open_books
from .settlement import Books, Outcome
from .soundness import Soundness, inspect
from .takings import Takings, statement_of, takings
from .transaction import NOTHING, SCHEMA, Posting, Transaction

RESERVE = "reserve"
CARRIED = "carried"
CAPPED = "carried:capped"
"""What the per-payer cap cut; no settlement brings it into a pool."""
DEFICIT = "deficit"
MAX_ENTRIES = 10_000


class Settled(NamedTuple):
    """One settlement as posted."""

    month: str
    as_of_ms: int
    digest: bytes
    statement: Statement


class Entry(NamedTuple):
    """One posting of an account: the number, time, kind and memo of its transaction, and its cents."""

    number: int
    at_ms: int
    kind: str
    cents: int
    memo: str


class Ledger:
    """The books at ``place``, a file or a PostgreSQL address; every method blocks and is thread-safe."""

    def __init__(self, place: Place, currency: str = "") -> None:
        """Open or create the ledger, of this ``currency`` where one is named.

        Raises:
            UsageError: ``currency`` where it is kept in another one.
            LocalError: where the database is damaged or does not answer.

        """
        self._place = place
        self._database = open_books(place)
        try:
            self._database.prepare(SCHEMA)
            with self.reading() as tx:
                ready = _is_kept(tx, currency) and not _old_payees(tx)
            if not ready:
                with self.transaction() as tx:
                    _keep(tx, currency)
                    _rename_payees(tx)
        except BaseException:
            self._database.close()
            raise

    @property
    def name(self) -> str:
        """Where the books are, without any secret."""
        return self._database.name

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def prepare(self, schema: Schema) -> None:
        """Bring the tables of another room of the money up to date."""
        self._database.prepare(schema)

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        """Make durable what the body posts and writes, or nothing of it; one writer at a time."""
        with self._database.writing() as session:
            yield Transaction(session)

    @contextmanager
    def reading(self) -> Generator[Transaction]:
        """Show the body one state of the books; nothing it writes stays."""
        with self._database.reading() as session:
            yield Transaction(session)

    # -- booking

    def book(self, booking: Booking, at_ms: int, key: bytes, *, month: str = "") -> bool:
        """Book it; False where ``key`` is booked already.

        It counts for the month of ``at_ms``, or for a ``month`` before that which is not settled yet.

        Raises:
            UsageError: for another booking under the same key, or a ``month`` that is settled.

        """
        with self.transaction() as tx:
            return _book(tx, booking, at_ms, key, month)

    def book_revenue(
        self, cents: int, at_ms: int, key: bytes, *, memo: str = "", account: bytes | None = None,
        month: str = "",
    ) -> bool:  # fmt: skip
        """Book income, optionally of one account (its pseudonym); as ``book``."""
        return self.book(bookings.revenue(cents, memo, account), at_ms, key, month=month)

    def book_cost(self, cents: int, at_ms: int, key: bytes, *, memo: str = "", month: str = "") -> bool:
        """Book a hub cost; as ``book``."""
        return self.book(bookings.cost(cents, memo), at_ms, key, month=month)

    def refund(self, number: int, at_ms: int, *, note: str = "") -> tuple[Booking, bytes]:
        """Book the inverse of transaction ``number``; returns it with its key.

        Raises:
            UsageError: where there is no such transaction, or it is refunded already or none that can be.

        """
        with self.transaction() as tx:
            row = tx.execute("SELECT id, kind, memo, at_ms FROM tx WHERE no = ?", (number,)).fetchone()
            if row is None:
                message = f"there is no transaction {number}; `farcast origin ledger` lists them"
                raise UsageError(message, reason="no_transaction")
            key, kind, memo, booked_ms = bytes(row[0]), row[1], row[2], row[3]
            if tx.number("refund", key) is not None:
                raise UsageError(f"transaction {number} is refunded already", reason="refunded")
            _, closed_ms = _closed(tx)
            booking = bookings.refund(
                number, kind, memo, tx.lines(number), note, is_open=booked_ms > closed_ms
            )
            _book(tx, booking, at_ms, key, "")
        return booking, key

    def number(self, kind: str, key: bytes) -> int | None:
        """Return the number of what is posted under this kind and key, None where nothing is."""
        with self.reading() as tx:
            return tx.number(kind, key)

    # -- settlement

    def books(self, month: str, as_of_ms: int) -> Books:
        """Return the sums that count in the settlement of ``month`` as of then; raises as ``takings``."""
        with self.reading() as tx:
            return takings(tx, month, as_of_ms).books

    def post_settlement(
        self,
        outcome: Outcome,
        relays: Mapping[bytes, bytes] | None = None,
        payee_of: Callable[[bytes], str] = lambda _: "",
        also: Callable[[Transaction], None] = lambda _: None,
    ) -> bool:
        """Post a month in one durable transaction; False where this very result is posted already.

        ``relays`` gives the first key of a relay that has served with another, so that its account
        stays one, and ``payee_of`` the payee a relay names; ``also`` writes what belongs to it.

        Raises:
            UsageError: ``settled`` where the month has another result, ``out_of_order`` where a
                later month is settled.
            LocalError: ``out_of_order`` where something was posted since the outcome was computed.

        """
        statement = outcome.statement
        name = digest(statement)
        payees = {line.relay: payee_of(line.relay) for line in statement.relays}
        with self.transaction() as tx:
            row = tx.execute("SELECT digest FROM settlement WHERE month = ?", (statement.month,)).fetchone()
            if row is not None:
                if bytes(row[0]) == name:
                    return False
                message = (
                    f"{statement.month} is settled already with another result, which stands; "
                    "what came later is carried into the next month"
                )
                raise UsageError(message, reason="settled")
            if (last := _closed(tx)[0]) > statement.month:
                message = f"{last} is settled already, so {statement.month} can no longer be"
                raise UsageError(message, reason="out_of_order")
            found = takings(tx, statement.month, statement.as_of_ms)
            _refuse_other_books(statement, found.books)
            key, at_ms = statement.month.encode(), statement.as_of_ms
            if statement.relay_pay_cents:
                tx.post("relay", key, at_ms, _relay_lines(statement, relays or {}, payees), name.hex())
            tx.post("view", key, at_ms, _view_lines(statement, outcome.lines, found), name.hex())
            tx.execute(
                "INSERT INTO settlement VALUES (?, ?, ?, ?, ?)",
                (statement.month, tx.number("view", key), at_ms, name, encoded(statement)),
            )
            also(tx)
        return True

    def difference(
        self,
        outcome: Outcome,
        relays: Mapping[bytes, bytes] | None = None,
        payee_of: Callable[[bytes], str] = lambda _: "",
    ) -> dict[str, tuple[int, int]]:
        """Return, of each account where they differ, what is posted of a month and what this would post."""
        statement = outcome.statement
        payees = {line.relay: payee_of(line.relay) for line in statement.relays}
        key = statement.month.encode()
        with self.reading() as tx:
            numbers = [tx.number(kind, key) for kind in ("relay", "view")]
            posted = [line for number in numbers if number is not None for line in tx.lines(number)]
            found = takings(tx, statement.month, statement.as_of_ms)
        would = _relay_lines(statement, relays or {}, payees)
        would += _view_lines(statement, outcome.lines, found)
        sums: dict[str, list[int]] = {}
        for side, lines in enumerate((posted, would)):
            for line in lines:
                sums.setdefault(line.account, [0, 0])[side] += line.cents
        return {
            account: (before, after) for account, (before, after) in sorted(sums.items()) if before != after
        }

    def settlements(self) -> list[Settled]:
        """Return every settlement in order of months."""
        with self.reading() as tx:
            rows = tx.execute(
                "SELECT month, as_of_ms, digest, statement FROM settlement ORDER BY month"
            ).fetchall()
        return [
            Settled(month, as_of_ms, bytes(name), statement_of(data)) for month, as_of_ms, name, data in rows
        ]

    # -- looking

    def last_settled(self) -> str:
        """Return the newest settled month, empty where there is none."""
        with self.reading() as tx:
            return _closed(tx)[0]

    def settled_as(self, month: str) -> bytes:
        """Return the digest of a month's settlement, empty where it is open."""
        with self.reading() as tx:
            row = tx.execute("SELECT digest FROM settlement WHERE month = ?", (month,)).fetchone()
        return bytes(row[0]) if row else b""

    # -- looking

    def balances(self, prefix: str = "") -> dict[str, int]:
        """Return the balances of accounts whose names begin like this, in cents, debits positive."""
        with self.reading() as tx:
            return tx.balances(prefix)

    def entries(self, account: str, *, after: int = 0, limit: int = MAX_ENTRIES) -> list[Entry]:
        """Return the first postings of an account behind transaction ``after``, oldest first."""
        with self.reading() as tx:
            rows = tx.execute(
                """SELECT no, at_ms, kind, cents, memo FROM posting JOIN tx ON no = posting.tx
                   WHERE account = ? AND no > ? ORDER BY no, line LIMIT ?""",
                (account, after, limit),
            ).fetchall()
        return [Entry(*row) for row in rows]

    def head(self) -> tuple[int, bytes]:
        """Return how many transactions there are and the hash of the last, which names all of them."""
        with self.reading() as tx:
            row = tx.execute("SELECT no, hash FROM tx ORDER BY no DESC LIMIT 1").fetchone()
        return (row[0], bytes(row[1])) if row else (0, NOTHING)

    def trial_balance(self) -> int:
        """Return the sum over all balances, which is zero in sound books."""
        return sum(self.balances().values())

    def check(self) -> Soundness:
        """Check all there is, over a connection of its own, so that nobody waits for it."""
        database = open_books(self._place)
        try:
            with database.reading() as session:
                return inspect(session)
        finally:
            database.close()

    def verify_chain(self) -> int:
        """Check every transaction's hash, chain and sum, and all balances; returns how many there are.

        Raises:
            LocalError: ``damaged``, naming the first transaction that is not what was posted.

        """
        found = self.check()
        if found.fault:
            message = f"{found.fault} in {self.name}; restore a backup"
            raise LocalError(message, reason="damaged")
        return found.transactions


def _book(tx: Transaction, booking: Booking, at_ms: int, key: bytes, month: str) -> bool:
    last, closed_ms = _closed(tx)
    if month and month <= last:
        message = f"{last} is settled already; book it without --month, for the next settlement"
        raise UsageError(message, reason="settled")
    # what is booked after a close belongs to the next month, whatever the clock says
    return tx.post(booking.kind, key, max(at_ms, closed_ms + 1), booking.lines, booking.memo(month))


def _closed(tx: Transaction) -> tuple[str, int]:
    """Return the last settled month and its cut."""
    row = tx.execute(
        "SELECT coalesce(max(month), ''), coalesce(max(as_of_ms), -1) FROM settlement"
    ).fetchone()
    assert row is not None, "an aggregate always has a row"
    return row[0], row[1]


def _is_kept(tx: Transaction, currency: str) -> bool:
    """Say whether the ledger is kept in ``currency`` already; raises ``UsageError`` for another one."""
    row = tx.execute("SELECT currency FROM ledger").fetchone()
    if row is not None and currency not in ("", row[0]):
        message = f"the ledger is kept in {row[0]}, so [money] currency cannot be {currency}"
        raise UsageError(message, reason="currency")
    return row is not None or not currency


def _keep(tx: Transaction, currency: str) -> None:
    if not _is_kept(tx, currency):
        tx.execute("INSERT INTO ledger VALUES (1, ?)", (currency,))


def _old_payees(tx: Transaction) -> dict[str, int]:
    return {account: cents for account, cents in tx.balances("payee:").items() if cents}


def _rename_payees(tx: Transaction) -> None:
    """Move what books of earlier versions owe under ``payee:`` to where payouts look."""
    if old := _old_payees(tx):
        lines = [Posting(account, -cents) for account, cents in old.items()]
        lines += [Posting(payable(account.partition(":")[2]), cents) for account, cents in old.items()]
        tx.post("rename", b"payee", 0, lines, "payee: accounts are payable: now")


def _refuse_other_books(statement: Statement, books: Books) -> None:
    if books.previous != statement.previous:
        raise LocalError("another settlement came in between; run it again", reason="out_of_order")
    known = (statement.revenue_cents, statement.booked_costs_cents, statement.brought_cents)
    if (books.revenue_cents, books.costs_cents, books.brought_cents) != known:
        raise LocalError("something was booked in between; run it again", reason="out_of_order")


def _relay_lines(
    statement: Statement, relays: Mapping[bytes, bytes], payees: Mapping[bytes, str]
) -> list[Posting]:
    """Return what relays earned: a cost of the pool, owed to the payee each one names or to itself."""
    owed: dict[str, int] = {}
    for line in statement.relays:
        payee = payees[line.relay]
        account = payable(payee) if payee else f"relay:{peer_id(relays.get(line.relay, line.relay))}"
        owed[account] = owed.get(account, 0) + line.cents
    return [
        Posting(COSTS, statement.relay_pay_cents),
        *(Posting(account, -cents) for account, cents in sorted(owed.items())),
    ]


def _view_lines(statement: Statement, lines: Sequence[Line], found: Takings) -> list[Posting]:
    """Return a settlement's postings: the open pool becomes what is owed to each."""
    s = statement
    owed: dict[str, int] = {}
    for line in lines:
        for account, cents in (
            (payable(line.payee), line.paid_cents),
            (f"held:{line.payee}", line.held_cents),
        ):
            owed[account] = owed.get(account, 0) + cents
    return [
        Posting(REVENUE, found.open_revenue_cents),
        Posting(COSTS, -found.open_costs_cents - s.relay_pay_cents),
        Posting(RESERVE, -s.reserve_cents),
        *(Posting(account, -cents) for account, cents in sorted(owed.items())),
        Posting(CARRIED, s.brought_cents - s.forward_cents),
        Posting(CAPPED, s.forward_cents - s.carried_cents),
        Posting(DEFICIT, s.deficit_cents),
    ]
