"""Backpay: what stands in the books for a relay that named no payee goes to the payee it names later.

The books themselves say what has moved: a balance that is not zero has not. So asking again, two
processes at once and a crash in between move it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...protocol.identity import peer_id
from .bookings import payable
from .ledger import Ledger
from .transaction import Posting, Transaction

PREFIX = "relay:"
KIND = "relay_payee"


def move(ledger: Ledger, payees: Callable[[], Mapping[bytes, str]], now_ms: int) -> dict[str, int]:
    """Move what stands for relays that name a payee now; returns the cents by payee.

    ``payees`` gives the payee of each key that a relay has or had, and is asked only where something
    stands. Blocks.

    Raises:
        LocalError: where the books do not answer.

    """
    with ledger.reading() as tx:
        if not _standing(tx):
            return {}
    named = {PREFIX + peer_id(key): payee for key, payee in payees().items() if payee}
    moved: dict[str, int] = {}
    if not named:
        return moved
    with ledger.transaction() as tx:
        for account, cents in _standing(tx).items():
            if (payee := named.get(account)) is None:
                continue
            row = tx.execute("SELECT max(tx) FROM posting WHERE account = ?", (account,)).fetchone()
            assert row is not None, "an aggregate always has a row"
            lines = [Posting(account, cents), Posting(payable(payee), -cents)]
            tx.post(KIND, f"{account} {row[0]}".encode(), now_ms, lines, f"{account} names {payee}")
            moved[payee] = moved.get(payee, 0) + cents
    return moved


def _standing(tx: Transaction) -> dict[str, int]:
    """Return the cents owed to relays by account."""
    return {account: -cents for account, cents in tx.balances(PREFIX).items() if cents < 0}
