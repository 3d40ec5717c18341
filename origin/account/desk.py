"""The account desk: whose viewing is counted, and the invites they and relays come by."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.errors import UsageError
from ...protocol.invite import Kind
from ..accounts import INVITE_DAYS, Accounts
from ..action import Actions, Result, date
from ..keys import Keys
from .invites import Invites


class AccountDesk:
    """Adds, ends and forgets ``accounts``, and makes invites under ``keys``."""

    def __init__(self, accounts: Accounts, keys: Keys, clock_ms: Callable[[], int]) -> None:
        self.accounts = accounts
        self._invites = Invites(keys)
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {
            "invite": self.invite,
            "account_add": self.add,
            "account_revoke": self.revoke,
            "account_erase": self.erase,
            "account_list": self.list_accounts,
        }

    def invite(self, *, relay: bool = False, account: str | None = None) -> Result:
        """Make a link: to this origin alone, to one more device of ``account``, or for a relay."""
        if relay and account is not None:
            raise UsageError("an invite is for a relay or for an account's device, not for both")
        kind: Kind = "relay" if relay else "viewer"
        self._invites.endpoint()  # no token is spent on a link that cannot be made
        token = self.accounts.invite(kind, self._clock_ms(), account=account) if relay or account else ""
        return {
            "link": self._invites.link(kind, token),
            "web": self._invites.web_link(token) if account else None,
            "kind": kind,
            "valid_days": INVITE_DAYS if token else None,
        }

    def add(self, name: str) -> Result:
        """Add an account and make the invite of its first device."""
        self._invites.endpoint()
        token = self.accounts.add(name, self._clock_ms())
        return {
            "account": name,
            "link": self._invites.link("viewer", token),
            "web": self._invites.web_link(token),
            "valid_days": INVITE_DAYS,
        }

    def revoke(self, name: str) -> Result:
        """End an account: no more tickets and keys, and its tickets in use count no further."""
        return {"account": name, "revoked_from": date(self.accounts.revoke(name, self._clock_ms()))}

    def erase(self, name: str) -> Result:
        """Forget whose account it is; its viewed time stays in the books under its pseudonym."""
        self.accounts.erase(name, self._clock_ms())
        return {"account": name, "erased": True}

    def list_accounts(self) -> Result:
        """List the accounts."""
        return {
            "accounts": [
                {
                    "account": account.name,
                    "pseudonym": account.pseudonym.hex(),
                    "devices": account.devices,
                    "revoked_from": None if account.revoked_ms is None else date(account.revoked_ms),
                }
                for account in self.accounts.accounts()
            ]
        }
