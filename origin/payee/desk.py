"""The payee desk: who is paid and how, and whose box may see it."""

from __future__ import annotations

from ...protocol.errors import RemoteError, UsageError
from ...protocol.identity import parse_peer_id
from ..accounts import Accounts
from ..action import Actions, Result
from ..payout.desk import PayoutDesk
from ..payout.payees import Wishes


class PayeeDesk:
    """Keeps the payees' terms at the ``payouts`` desk and their boxes' keys in ``accounts``."""

    def __init__(self, payouts: PayoutDesk, accounts: Accounts) -> None:
        self.payouts = payouts
        self.accounts = accounts

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {
            "payee_add": self.add,
            "payee_set": self.set_terms,
            "payee_list": self.payouts.list_payees,
            "payee_key": self.let_see,
        }

    def add(self, payee: str, terms: Wishes | None = None) -> Result:
        """Add somebody to be paid, or correct what ``terms`` names."""
        return self.payouts.put_payee(payee, terms or Wishes(), new=True)

    def set_terms(self, payee: str, terms: Wishes) -> Result:
        """Change the terms of somebody who is paid already."""
        return self.payouts.put_payee(payee, terms, new=False)

    def let_see(self, payee: str, key: str) -> Result:
        """Let the box with this id see what a payee earns."""
        self.accounts.add_payee_key(payee, parse_key(key))
        return {"payee": payee, "key": key}


def parse_key(text: str) -> bytes:
    """Read a box's id, ``12D3KooW...``; raises ``UsageError``."""
    try:
        return parse_peer_id(text)
    except RemoteError as error:
        message = f"{text!r} is no box's id; `farcast key show` prints it there"
        raise UsageError(message) from error
