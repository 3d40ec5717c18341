"""The office: everything the origin's team can do, once, whether the origin is running or not.

A command that finds the home free does its work through an ``Office`` of its own; otherwise the
running origin does it through the admin API (``origin/admin.py``). Both go through ``perform``, which
asks the desk whose action it is: each noun's lies in its own room, beside its commands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from prometheus_client import CollectorRegistry

from ..node.blocks.store import DiskStore
from ..node.catalog.replica import catalog_name
from ..node.ladder.tiers import address
from ..node.report import Report
from ..node.settings import Settings
from .account.desk import AccountDesk
from .accounts import Accounts
from .action import Actions, Result, act, date
from .backup.desk import BackupDesk
from .cdn.edges import FOLDER as PURGES
from .cdn.edges import Edges
from .cdn.watch import Watch
from .cdn.zone import bare
from .keys import ROOT_WARNING, Keys
from .log import CatalogLog
from .mirror import Mirror
from .money.bursary import Bursary
from .money.desk import MoneyDesk
from .money.ledgerwatch import LedgerWatch
from .money.treasury import Treasury
from .payee.desk import PayeeDesk
from .payout.desk import PayoutDesk
from .relays.desk import RelayDesk
from .repository import ROOT_WARNING_DAYS
from .roster import Roster
from .title.desk import TitleDesk
from .title.shelf import Shelf
from .title.withdrawals import Withdrawals
from .trust.desk import TrustDesk

DAY_S = 86_400


class Office:
    """The origin at ``home``, whose lock the caller holds."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry | None = None,
        store: DiskStore | None = None,
    ) -> None:
        """Open keys, accounts and catalog; without a ``store`` the home's own is opened when needed.

        Raises:
            UsageError: where no origin lives in ``home``.
            LocalError: where a file of it is damaged.

        """
        self.home = home
        self.settings = settings
        self._clock_ms = clock_ms
        self._registry = registry or CollectorRegistry()
        self.keys = Keys(home)
        self.edges = Edges(settings.cdn.zones, home / PURGES, os.environ, self._registry)
        self.watch = Watch(self._registry, allow_private=settings.network.allow_private)
        with ExitStack() as opened:
            self.accounts = opened.enter_context(closing(Accounts(home / "accounts.db")))
            self.roster = Roster(
                self.accounts, self.keys.catalog, allow_private=settings.network.allow_private
            )
            self.log = CatalogLog(home / "catalog", self.keys.catalog, catalog_name(self.keys.keyring))
            opened.pop_all()  # all of it is sound, so it stays open until ``close``
        self.shelf = Shelf(home, settings, self.log, self._registry, store)
        self.treasury = Treasury(
            home, settings, self.keys, self.roster, self.shelf.manifest_of, self._registry
        )
        self.treasury.revoked = self.accounts.revocations
        self.bursary = Bursary(self.treasury, self.roster, clock_ms, self._registry)
        self.books = LedgerWatch(self.treasury.check_ledger, self._registry)
        self.payouts = PayoutDesk(
            home, settings, self.accounts, self.treasury, self.keys.publisher.key, clock_ms, self._registry
        )
        mirror = Mirror(settings.kubo.rpc, self._registry) if settings.kubo.rpc else None
        self.trust = TrustDesk(self.keys, self.edges, clock_ms)
        self.titles = TitleDesk(self.shelf, self.keys, self.accounts, mirror, clock_ms)
        self.withdrawals = Withdrawals(
            self.shelf, self.keys, self.roster, self.edges, mirror, lambda: self.serving, clock_ms
        )
        self.members = AccountDesk(self.accounts, self.keys, clock_ms)
        self.payees = PayeeDesk(self.payouts, self.accounts)
        self.relays = RelayDesk(self.roster, clock_ms)
        self.money = MoneyDesk(self.treasury, self.payouts, self.accounts, self.roster, clock_ms)
        self.backups = BackupDesk(home, self.keys, self.log, self.shelf, self.treasury, clock_ms)
        self.on_air: Callable[[], Result | None] = lambda: None
        """What the carousel sends, where this origin runs and has one."""
        self.by_radio: Callable[[], Result | None] = lambda: None
        """What is heard by radio, where this origin runs and has one."""
        self.serving = False
        """Whether this origin runs, so that relays can hear of a change at once."""
        self._actions: Actions = {
            **self.trust.actions,
            **self.members.actions,
            **self.titles.actions,
            **self.withdrawals.actions,
            **self.relays.actions,
            **self.payees.actions,
            **self.payouts.actions,
            **self.money.actions,
            **self.bursary.actions,
            **self.backups.actions,
            "status": self.status,
        }

    def close(self) -> None:
        """Close every file this office opened."""
        self.shelf.close()
        self.treasury.close()
        self.log.close()
        self.accounts.close()

    def perform(self, action: str, arguments: Mapping[str, object], report: Report) -> Result:
        """Do one action by name with JSON arguments; long ones tell ``report`` how far they are.

        Raises:
            UsageError: for an unknown action or arguments it does not take, and what it raises.

        """
        return act(self._actions, action, arguments, report)

    def look_at_edges(self) -> None:
        """Ask each pull zone whether it serves, and caches, the newest title's folder. Blocking."""
        if self.keys.keyring.cdn:
            newest = max(self.log.catalog.titles().values(), key=lambda entry: entry.at_ms, default=None)
            manifest = self.shelf.manifest_of(newest.cid.digest) if newest else None
            asyncio.run(self.watch.look(self.keys.keyring, manifest.root_cid if manifest else None))

    def status(self, *, look: bool = False) -> Result:
        """Say how the origin stands; with ``look`` its pull zones are asked now."""
        if look:
            self.look_at_edges()
            if not self.serving:  # an origin that runs looks every hour
                self.books.look()
        root = self.keys.repository.root_state
        now_s = self._clock_ms() / 1_000
        standings = [relay.standing for relay in self.roster.relays()]
        keyring = self.keys.keyring
        money = self.bursary.facts()
        warnings = self._warnings(root.expires_s - now_s, root.threshold, len(keyring.endpoints))
        return {
            "name": keyring.name,
            "peer_id": self.keys.box.peer_id,
            "endpoints": [address(endpoint) for endpoint in keyring.endpoints],
            "cdn": [bare(base) for base in keyring.cdn],
            "edges": self.watch.facts(),
            "titles": len(self.log.catalog.titles()),
            "catalog_entries": self.log.catalog.size,
            "accounts": len(self.accounts.accounts()),
            "payees": len(self.accounts.payees()),
            "relays": {
                standing: standings.count(standing) for standing in ("approved", "pending", "refused")
            },
            "root": {
                "sha256": self.keys.repository.root_sha256,
                "version": root.version,
                "expires": date(int(root.expires_s * 1_000)),
                "threshold": f"{root.threshold} of {root.keys}",
            },
            "air": self.on_air(),
            "radio": self.by_radio(),
            "warnings": [*money.pop("money_warnings"), *warnings],
            **money,
        }

    def _warnings(self, root_left_s: float, threshold: int, endpoints: int) -> Sequence[str]:
        found: list[str] = [self.books.trouble] if self.books.trouble else []
        if root_left_s < ROOT_WARNING_DAYS * DAY_S:
            left = max(0, int(root_left_s // DAY_S))
            found.append(f"the root of trust expires in {left} days: run `farcast origin renew`")
        if not endpoints:
            found.append("no address is announced: run `farcast origin announce HOST:PORT`")
        found += [f"the pull zone {one.name}: {one.trouble}" for one in self.watch.looks if one.trouble]
        found += [
            f"[cdn] zones has {base}, which no box is told of: run `farcast origin announce --cdn {base}`"
            for base in self.edges.strays(self.keys.keyring.cdn)
        ]
        if threshold < 2:  # noqa: PLR2004 - 2 of 3 is where it should be
            found.append(ROOT_WARNING)
        return found
