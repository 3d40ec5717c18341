"""The office: everything the origin's team can do, once, whether the origin is running or not.

A command that finds the home free does its work through an ``Office`` of its own; otherwise the
running origin does it through the admin API (``origin/admin.py``). Both go through ``perform``.

Over 400 lines because the office is the table of all actions, each only a few lines over the part
that does the work.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry

from ..node.blocks.store import DiskStore
from ..node.catalog.replica import catalog_name
from ..node.catalog.takedown import Takedown
from ..node.ladder.tiers import address
from ..node.report import Report
from ..node.settings import Settings
from ..protocol.catalog import Catalog, Entry, open_entry
from ..protocol.cid import RAW, Cid
from ..protocol.directory import Endpoint
from ..protocol.errors import LocalError, RemoteError, UsageError
from ..protocol.identity import parse_peer_id, peer_id
from ..protocol.invite import Invite, Kind, format_invite
from ..protocol.manifest import Manifest, open_manifest
from .accounts import INVITE_DAYS, Accounts
from .backup import Backup
from .cdn.edges import FOLDER as PURGES
from .cdn.edges import Edges
from .cdn.paths import title_paths
from .cdn.watch import Watch
from .cdn.zone import bare
from .forecast import forecast
from .keys import ROOT_WARNING, Keys
from .log import CatalogLog
from .mirror import Mirror
from .money import backpay
from .money.bookings import parse_split
from .money.bursary import Bursary
from .money.ledgerwatch import LedgerWatch
from .money.treasury import Treasury
from .payout.desk import PayoutDesk
from .payout.payees import Wishes
from .publish import manifest_label, pin_label, publish
from .repository import ROOT_WARNING_DAYS
from .roster import Roster
from .sealedfile import SALT_BYTES
from .studio.contentkeys import ContentKeys
from .studio.drafts import Drafts, follow_up
from .studio.film import load_film
from .studio.ingest import Ingest
from .withdrawal import WAIT_S, Row, Withdrawal

Result = dict[str, Any]
"""What an action returns: plain values, ready for JSON."""

DAY_S = 86_400
CDN_LIMIT_CHARS = 400
REASON_CHARS = 400


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
        self._telling = threading.Lock()
        self.edges = Edges(settings.cdn.zones, home / PURGES, os.environ, self._registry)
        self.watch = Watch(self._registry, allow_private=settings.network.allow_private)
        with ExitStack() as opened:
            self.accounts = opened.enter_context(closing(Accounts(home / "accounts.db")))
            self.roster = Roster(
                self.accounts, self.keys.catalog, allow_private=settings.network.allow_private
            )
            self.log = CatalogLog(home / "catalog", self.keys.catalog, catalog_name(self.keys.keyring))
            opened.pop_all()  # all of it is sound, so it stays open until ``close``
        self.treasury = Treasury(home, settings, self.keys, self.roster, self._manifest_of, self._registry)
        self.treasury.revoked = self.accounts.revocations
        self.bursary = Bursary(self.treasury, self.roster, clock_ms, self._registry)
        self.books = LedgerWatch(self.treasury.check_ledger, self._registry)
        self.payouts = PayoutDesk(
            home, settings, self.accounts, self.treasury, self.keys.publisher.key, clock_ms, self._registry
        )
        rpc = settings.kubo.rpc
        self._mirror = Mirror(rpc, self._registry) if rpc else None
        self._own_store: DiskStore | None = None
        self._given_store = store
        self._takedown: Takedown | None = None
        self.on_air: Callable[[], Result | None] = lambda: None
        """What the carousel sends, where this origin runs and has one."""
        self.serving = False
        """Whether this origin runs, so that relays can hear of a change at once."""
        self._actions: dict[str, Callable[..., Result]] = {
            "invite": self.invite,
            "account_add": self.account_add,
            "account_revoke": self.account_revoke,
            "account_erase": self.account_erase,
            "account_list": self.account_list,
            "payee_add": self.payee_add,
            "payee_set": self.payee_set,
            "payee_list": self.payouts.list_payees,
            "payout_list": self.payouts.overview,
            "payout_run": self.payout_run,
            "payout_confirm": self.payouts.confirm,
            "payout_fail": self.payouts.fail,
            "payout_show": self.payouts.show,
            "payout_read": self.payouts.read,
            "announce": self.announce,
            "renew": self.renew,
            "publish": self.publish,
            "release": self.release,
            "list": self.list_titles,
            "retire": self.retire,
            "deny": self.deny,
            "purge": self.purge,
            "relays": self.relays,
            "relay_judge": self.relay_judge,
            "book": self.book,
            "ledger": self.ledger,
            "settle": self.settle,
            "report": self.report,
            "evidence": self.evidence,
            "backup": self.backup,
            "status": self.status,
            "payee_key": self.payee_key,
            **self.bursary.actions,
        }

    def close(self) -> None:
        """Close every file this office opened."""
        if self._own_store is not None:
            self._own_store.close()
        self.treasury.close()
        self.log.close()
        self.accounts.close()

    @property
    def store(self) -> DiskStore:
        """The home's blocks."""
        if self._given_store is not None:
            return self._given_store
        if self._own_store is None:
            self._own_store = DiskStore(self.home, self.settings.store.quota_bytes, self._registry)
        return self._own_store

    @property
    def drafts(self) -> Drafts:
        """The titles that are not in the catalog yet."""
        return Drafts(self.home / "drafts", self.store)

    @property
    def manifests(self) -> Callable[[bytes], Manifest | None]:
        """Finds the manifest of a digest, where it was published here; it blocks."""
        return self._manifest_of

    @property
    def takedown(self) -> Takedown:
        """What was taken down here; the manifests stay, because settling needs them."""
        if self._takedown is None:
            folder = self.home / "takedown"
            self._takedown = Takedown(
                folder, _Heads(self.log), self.store, self._registry, spares_manifests=True
            )
            self._takedown.load()
        return self._takedown

    def perform(self, action: str, arguments: Mapping[str, object], report: Report) -> Result:
        """Do one action by name with JSON arguments; long ones tell ``report`` how far they are.

        Raises:
            UsageError: for an unknown action or arguments it does not take, and what it raises.

        """
        method = self._actions.get(action)
        if method is None:
            raise UsageError(f"the origin knows no action {action!r}", reason="unknown_action")
        parameters = inspect.signature(method, eval_str=True).parameters
        if unknown := arguments.keys() - parameters.keys():
            raise UsageError(f"{action} takes no {', '.join(sorted(unknown))}", reason="bad_arguments")
        try:
            values: dict[str, object] = {
                name: msgspec.convert(value, parameters[name].annotation) for name, value in arguments.items()
            }
            if "progress" in parameters:
                values["progress"] = report
            bound = inspect.signature(method).bind(**values)
        except (msgspec.ValidationError, TypeError) as error:
            raise UsageError(f"{action}: {error}", reason="bad_arguments") from error
        return method(*bound.args, **bound.kwargs)

    def invite(self, *, relay: bool = False, account: str | None = None) -> Result:
        """Make a link: to this origin alone, to one more device of ``account``, or for a relay."""
        if relay and account is not None:
            raise UsageError("an invite is for a relay or for an account's device, not for both")
        kind: Kind = "relay" if relay else "viewer"
        self._endpoint()  # no token is spent on a link that cannot be made
        token = self.accounts.invite(kind, self._clock_ms(), account=account) if relay or account else ""
        return {
            "link": self._link(kind, token),
            "web": self._web_link(token) if account else None,
            "kind": kind,
            "valid_days": INVITE_DAYS if token else None,
        }

    def account_add(self, name: str) -> Result:
        """Add an account and make the invite of its first device."""
        self._endpoint()
        token = self.accounts.add(name, self._clock_ms())
        return {
            "account": name,
            "link": self._link("viewer", token),
            "web": self._web_link(token),
            "valid_days": INVITE_DAYS,
        }

    def account_revoke(self, name: str) -> Result:
        """End an account: no more tickets and keys, and its tickets in use count no further."""
        return {"account": name, "revoked_from": _date(self.accounts.revoke(name, self._clock_ms()))}

    def account_erase(self, name: str) -> Result:
        """Forget whose account it is; its viewed time stays in the books under its pseudonym."""
        self.accounts.erase(name, self._clock_ms())
        return {"account": name, "erased": True}

    def account_list(self) -> Result:
        """List the accounts."""
        return {
            "accounts": [
                {
                    "account": account.name,
                    "pseudonym": account.pseudonym.hex(),
                    "devices": account.devices,
                    "revoked_from": None if account.revoked_ms is None else _date(account.revoked_ms),
                }
                for account in self.accounts.accounts()
            ]
        }

    def payee_add(self, payee: str, terms: Wishes | None = None) -> Result:
        """Add somebody to be paid, or correct what ``terms`` names."""
        return self.payouts.put_payee(payee, terms or Wishes(), new=True)

    def payee_set(self, payee: str, terms: Wishes) -> Result:
        """Change the terms of somebody who is paid already."""
        return self.payouts.put_payee(payee, terms, new=False)

    def payee_key(self, payee: str, key: str) -> Result:
        """Let the box with this id see what a payee earns."""
        self.accounts.add_payee_key(payee, parse_key(key))
        return {"payee": payee, "key": key}

    def announce(self, endpoints: list[str] | None = None, cdn: list[str] | None = None) -> Result:
        """Tell the world other addresses of this origin, or other CDN base URLs."""
        with self._telling:
            known = self.keys.keyring
            bases = known.cdn if cdn is None else [parse_cdn(text) for text in cdn]
            places = known.endpoints if endpoints is None else [parse_endpoint(text) for text in endpoints]
            signed = self.edges.signed(bases, self._clock_ms() // 1_000)
            keyring = msgspec.structs.replace(known, endpoints=places, cdn=signed)
            changed = self.keys.repository.update_keyring(keyring, self._clock_ms() / 1_000)
        return {
            "changed": changed,
            "endpoints": [address(endpoint) for endpoint in keyring.endpoints],
            "cdn": [bare(base) for base in keyring.cdn],
        }

    def sign_edges(self) -> None:
        """Tell boxes the pull zones' tokens of this hour, where they are others than the last; blocking."""
        with self._telling:
            known = self.keys.keyring
            signed = self.edges.signed(known.cdn, self._clock_ms() // 1_000)
            if signed != known.cdn:
                keyring = msgspec.structs.replace(known, cdn=signed)
                self.keys.repository.update_keyring(keyring, self._clock_ms() / 1_000)

    def renew(self, passphrase: str) -> Result:
        """Sign the next version of root.json, good for another year."""
        self.keys.renew_root(passphrase, self._clock_ms() / 1_000)
        state = self.keys.repository.root_state
        return {"version": state.version, "expires": _date(int(state.expires_s * 1_000))}

    def publish(
        self,
        media: str,
        title: str | None = None,
        payee: str | None = None,
        preset: str = "",
        loop_to_s: float = 0,
        access: Literal["", "open", "ticket"] = "",
        *,
        dry_run: bool = False,
        draft: bool = False,
        progress: Report,
    ) -> Result:
        """Encode, package, sign and list a film; again, only what changed.

        Where no payee is named anywhere and just one is known, that one gets everything; ``access``
        comes before what film.toml says. A ``draft`` is not listed before ``release``.
        """
        path = Path(media)
        known = [payee.id for payee in self.accounts.payees()]
        film = load_film(path, title=title, payee=payee or (known[0] if len(known) == 1 else None))
        if access:
            film = replace(film, access=access)
        for share in film.payees:
            if share.payee not in known:
                message = f"{film.title} pays {share.payee!r}, whom this origin does not know; "
                raise UsageError(message + f"add them with `farcast origin payee add {share.payee}`")
        shares = [{"payee": share.payee, "basis_points": share.points} for share in film.payees]
        entry = self.log.catalog.titles().get(film.title)
        encodes = self.home / "encodes"
        asked = Ingest(path, encodes, preset=preset, loop_to_s=loop_to_s, sounds=film.sounds)
        if dry_run:
            return {
                **forecast(film, asked, progress),
                "access": film.access,
                "payees": shares,
                "listed": entry is not None,
            }
        now_ms = self._clock_ms()
        previous = self._manifest(entry) if entry else None
        done = publish(
            path,
            film,
            encodes,
            self.store,
            self.keys.publisher,
            previous,
            now_ms,
            preset,
            progress,
            loop_to_s=loop_to_s,
            keys=ContentKeys(self.keys.content_secret),
            drafts=self.drafts if draft else None,
        )
        kubo = None
        if not draft:
            kubo = self._list(film.title, done.cid, done.manifest, now_ms, progress)
            self.drafts.drop(film.title)
        return {
            "title": film.title,
            "name": film.name,
            "version": done.manifest.version,
            "changed": done.changed,
            "root_cid": str(done.manifest.root_cid),
            "manifest_cid": str(done.cid),
            "duration_s": done.manifest.duration_ms / 1_000,
            "bytes": done.manifest.size_bytes,
            "renditions": len(done.manifest.renditions),
            "playback_segments": _played_segments(done.manifest),
            "folder": str(done.folder),
            "blocks": done.blocks,
            "new_blocks": done.new_blocks,
            "new_bytes": done.new_bytes,
            "access": done.manifest.access,
            "payees": shares,
            "kubo": kubo,
            "warnings": list(done.warnings),
            "draft": draft,
            "dry_run": False,
        }

    def release(self, title: str, *, progress: Report) -> Result:
        """Put a draft into the catalog, on top of what is listed under its title by now."""
        cid = self.drafts.find(title)
        if cid is None:
            message = f"there is no draft of {title!r}; `farcast origin list` shows drafts"
            raise UsageError(message, reason="no_draft")
        drafted, blocks = self.drafts.manifest(title, cid), self.drafts.blocks(title, cid)
        entry = self.log.catalog.titles().get(title)
        previous = self._manifest(entry) if entry else None
        cid, data, manifest = follow_up(drafted, previous, self.keys.publisher)
        self.store.put(cid, data, hashed=True)
        self.store.sync()
        self.store.pin(pin_label(title, manifest.root_cid), [*blocks, cid])
        kubo = self._list(title, cid, manifest, self._clock_ms(), progress)
        self.drafts.drop(title)
        return {
            "title": title,
            "version": manifest.version,
            "root_cid": str(manifest.root_cid),
            "manifest_cid": str(cid),
            "kubo": kubo,
        }

    def _list(self, title: str, cid: Cid, manifest: Manifest, now_ms: int, progress: Report) -> Result | None:
        """Name a manifest in the catalog unless it is named there; returns what became of it in Kubo."""
        self.store.pin(manifest_label(cid), [cid])
        entry = self.log.catalog.titles().get(title)
        previous = self._manifest(entry) if entry else None
        if entry is None or entry.cid != cid:
            self.log.append("supersede" if entry else "publish", title, cid, now_ms)
            self.takedown.enforce()  # the film may need what went with another
        if previous is not None and entry is not None and previous.root != manifest.root:
            self._let_go(title, [previous.root_cid], [entry.cid])
        if self._mirror is None:
            return None
        gone = self._unlisted(previous.root_cid, entry.cid) if previous and entry else []
        roots = [manifest.root_cid, cid]
        return self._mirror.add(roots, gone, manifest.size_bytes, self.store, progress)

    def list_titles(self) -> Result:
        """List what the catalog offers."""
        titles: list[Result] = []
        for title, entry in sorted(self.log.catalog.titles().items()):
            manifest = self._manifest(entry)
            titles.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "version": manifest.version,
                    "duration_s": manifest.duration_ms / 1_000,
                    "bytes": manifest.size_bytes,
                    "published": _date(entry.at_ms),
                    "payees": [share.payee for share in manifest.payees],
                    "access": manifest.access,
                    "draft": False,
                }
            )
        for title, cid in self.drafts.titles().items():
            manifest = self.drafts.manifest(title, cid)
            titles.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "version": manifest.version,
                    "duration_s": manifest.duration_ms / 1_000,
                    "bytes": manifest.size_bytes,
                    "published": None,
                    "payees": [share.payee for share in manifest.payees],
                    "access": manifest.access,
                    "draft": True,
                }
            )
        return {"titles": titles, "entries": self.log.catalog.size}

    def retire(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Take a title off the list; whoever holds it may keep playing it."""
        entry = self.log.catalog.titles().get(title)
        if entry is None:
            raise UsageError(f"no title {title!r} is listed; `farcast origin list` shows them")
        manifest = self._manifest(entry)
        withdrawal = self._withdrawal(title, [manifest.root_cid], bytes_leave=False, entries=1)
        self.log.append("retire", title, entry.cid, self._clock_ms())
        self._let_go(title, [manifest.root_cid], self.log.catalog.versions(title))
        row = self._unpinned(withdrawal, [manifest.root_cid, entry.cid])
        return self._followed(withdrawal, title, "retire", "unlisted", progress, wait_s, row)

    def deny(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Take a title down, every version of it: boxes that follow this catalog stop serving it."""
        versions = self.log.catalog.versions(title)
        if not versions:
            message = f"no title {title!r} was published here that is not taken down already"
            raise UsageError(f"{message}; `farcast origin list` shows them")
        roots = self._roots(versions)
        withdrawal = self._withdrawal(title, roots, bytes_leave=True, entries=len(versions))
        for cid in versions:
            self.log.append("deny", title, cid, self._clock_ms())
        self._list_purge(title, versions, roots)
        dropped = self.takedown.enforce()
        self._let_go(title, roots, versions)
        row = self._unpinned(withdrawal, [*roots, *versions])
        found = self._followed(withdrawal, title, "deny", "gone", progress, wait_s, row)
        return {**found, "versions": len(versions), "dropped_blocks": dropped}

    def purge(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Delete here what only a title off the list needs, and say who still has it."""
        if self.log.catalog.listed(title) is not None:
            message = f"{title} is listed; `farcast origin retire {title}` takes it off the list first"
            raise UsageError(message)
        versions = self.log.catalog.versions(title, denied=True)
        drafted = self.drafts.find(title) is not None
        if not versions and not drafted:
            raise UsageError(f"no title {title!r} was ever published here")
        self.drafts.drop(title)
        roots = self._roots(versions)
        withdrawal = self._withdrawal(title, roots, bytes_leave=True, entries=0)
        self._let_go(title, roots, versions)
        self._list_purge(title, versions, roots)
        dropped = sum(self.store.drop(cid) for cid in self.takedown.alone(versions))
        row = self._unpinned(withdrawal, [*roots, *versions])
        found = self._followed(withdrawal, title, "purge", "gone", progress, wait_s, row)
        return {**found, "dropped_blocks": dropped}

    def _let_go(self, title: str, roots: Sequence[Cid], manifests: Sequence[Cid]) -> None:
        """Pin folders of a title no longer; its manifests stay: late pulses name them."""
        for cid in manifests:  # a home of before may keep them with their folder alone
            self.store.pin(manifest_label(cid), [cid])
        for root in roots:
            self.store.unpin(pin_label(title, root))

    def _list_purge(self, title: str, versions: Sequence[Cid], roots: Sequence[Cid]) -> None:
        """Note what pull zones must let go of while the folders that tell are still here."""
        zones = [base for base in self.keys.keyring.cdn if self.edges.purges(base)]
        if zones:
            blocks = self.takedown.alone(versions) | frozenset(self._unlisted(*versions, *roots))
            self.edges.remember(title, zones, title_paths(title, roots, blocks, self.store.get))

    def _roots(self, manifests: Sequence[Cid]) -> list[Cid]:
        found = (self._manifest_of(cid.digest) for cid in manifests)
        return [manifest.root_cid for manifest in found if manifest is not None]

    def _withdrawal(self, title: str, roots: Sequence[Cid], *, bytes_leave: bool, entries: int) -> Withdrawal:
        return Withdrawal(
            title,
            roots,
            self.log.catalog.size + entries,
            self.keys.keyring,
            self.edges,
            bytes_leave=bytes_leave,
            allow_private=self.settings.network.allow_private,
        )

    def _unpinned(self, withdrawal: Withdrawal, cids: Sequence[Cid]) -> list[Row]:
        """Let the publisher's Kubo, if there is one, forget what no listed title needs."""
        if self._mirror is None:
            return []
        problem = self._mirror.remove(self._unlisted(*cids))
        return [
            Row(
                "kubo", self._mirror.rpc, problem or "unpinned", None if problem else withdrawal.since_s(), ""
            )
        ]

    def _followed(
        self,
        withdrawal: Withdrawal,
        title: str,
        action: str,
        state: str,
        progress: Report,
        wait_s: float,
        kubo: Sequence[Row],
    ) -> Result:
        """Say how long each tier took, this origin first."""
        rows = [Row("origin", self.keys.keyring.name, state, withdrawal.since_s(), ""), *kubo]
        relays = [
            relay
            for relay in self.roster.relays()
            if relay.standing == "approved" and relay.record.expires_ms > self._clock_ms()
        ]
        asked = relays if self.serving else []  # nobody hears of it from an origin at rest
        rows += [Row("relay", relay.peer_id, "not asked", None, "") for relay in relays if relay not in asked]
        rows += withdrawal.follow(asked, progress, wait_s=min(max(wait_s, 0.0), WAIT_S))
        return {
            "title": title,
            "action": action,
            "entries": self.log.catalog.size,
            "tiers": [row.facts() for row in rows],
            "failed": [row.name for row in rows if row.failed],
        }

    def relays(self) -> Result:
        """List the relays and how they stand."""
        return {
            "relays": [
                {
                    "id": relay.peer_id,
                    "standing": relay.standing,
                    "endpoints": [address(endpoint) for endpoint in relay.record.endpoints],
                    "payee": relay.record.payee,
                    "seen": _date(relay.record.created_ms),
                    "expired": relay.record.expires_ms <= self._clock_ms(),
                    "wish": relay.wish,
                    "reason": relay.reason,
                    "listed": relay.listed(self._clock_ms()),
                    "faults": [f"{fault.endpoint}: {fault.why}" for fault in relay.faults],
                }
                for relay in self.roster.relays()
            ]
        }

    def relay_judge(self, relay: str, *, approve: bool, reason: str = "") -> Result:
        """Approve or refuse a relay, and tell its operator why."""
        if len(reason) > REASON_CHARS or not reason.isprintable():
            raise UsageError(f"--reason is one line of at most {REASON_CHARS} characters")
        judged = self.roster.judge(relay, "approved" if approve else "refused", reason)
        self.roster.sign(self._clock_ms())
        return {"id": peer_id(judged), "standing": "approved" if approve else "refused"}

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

    def payout_run(self, *, dry_run: bool = False) -> Result:
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

    def backup(self, file: str, passphrase: str, *, blocks: bool = False, progress: Report) -> Result:
        """Write everything this origin needs to ``file``, an absolute path, under ``passphrase``."""
        settled, catalog = self.treasury.settled(), self.log.catalog
        size = catalog.size
        summary: Result = {
            "v": 1,
            "name": self.keys.keyring.name,
            "peer_id": self.keys.box.peer_id,
            "made": datetime.fromtimestamp(self._clock_ms() / 1_000, UTC).isoformat(timespec="seconds"),
            "catalog": {"size": size, "root": catalog.tree.root(size).hex()},
            "settled": settled,
            "ledger": "postgresql" if self.treasury.address else "sqlite",
            "blocks": blocks,
        }
        named = {open_entry(data).cid for data in catalog.entries[:size]}
        found = ((str(cid), self.store.get(cid)) for cid in sorted(named, key=str))
        manifests = ((name, data) for name, data in found if data is not None)
        backup = Backup(
            self.home, summary, self.keys.repository.files(), manifests, blocks=blocks,
            books=self.treasury.address,
        )  # fmt: skip
        files, size_bytes = backup.write(Path(file), passphrase, secrets.token_bytes(SALT_BYTES), progress)
        return {
            "file": file,
            "bytes": size_bytes,
            "files": files,
            "blocks": blocks,
            "ledger": summary["ledger"],
            "settled": max(summary["settled"], default=None),
            "catalog_entries": size,
        }

    def look_at_edges(self) -> None:
        """Ask each pull zone whether it serves, and caches, the newest title's folder. Blocking."""
        if self.keys.keyring.cdn:
            newest = max(self.log.catalog.titles().values(), key=lambda entry: entry.at_ms, default=None)
            manifest = self._manifest_of(newest.cid.digest) if newest else None
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
                "expires": _date(int(root.expires_s * 1_000)),
                "threshold": f"{root.threshold} of {root.keys}",
            },
            "air": self.on_air(),
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

    def _unlisted(self, *cids: Cid) -> list[Cid]:
        """Return those of ``cids`` that no listed title has as its root or manifest."""
        listed: set[Cid] = set()
        for entry in self.log.catalog.titles().values():
            manifest = self._manifest_of(entry.cid.digest)
            listed |= {entry.cid} | ({manifest.root_cid} if manifest else set())
        return [cid for cid in cids if cid not in listed]

    def _manifest(self, entry: Entry) -> Manifest:
        data = self.store.get(entry.cid)
        if data is None:
            message = (
                f"the manifest of {entry.title} is gone from {self.home}/blocks; bring it back from a backup"
            )
            raise LocalError(message, reason="no_manifest")
        return open_manifest(data)

    def _manifest_of(self, digest: bytes) -> Manifest | None:
        """Return the manifest whose block has this SHA-256 digest, if it was published here."""
        data = self.store.get(Cid(RAW, digest))
        try:
            return open_manifest(data) if data is not None else None
        except RemoteError:
            return None  # a pulse may name any block; one that is no manifest is worth nothing

    def _endpoint(self) -> Endpoint:
        endpoints = [endpoint for endpoint in self.keys.keyring.endpoints if not endpoint.web]
        if not endpoints:
            message = (
                "this origin has no address to put into an invite; name one with `farcast origin announce`"
            )
            raise UsageError(message, reason="no_endpoint")
        return endpoints[0]

    def _link(self, kind: Kind, token: str) -> str:
        endpoint = self._endpoint()
        return format_invite(
            Invite(endpoint.host, endpoint.port, self.keys.repository.root_sha256, token, kind)
        )

    def _web_link(self, token: str) -> str | None:
        """Return the link that redeems an invitation in a browser; None without a ``web`` endpoint."""
        web = next((endpoint for endpoint in self.keys.keyring.endpoints if endpoint.web), None)
        return f"https://{address(web).removesuffix(':443')}/web/#token={token}" if web else None


class _Heads:
    """The catalog alone, for parts that need no signed heads."""

    def __init__(self, log: CatalogLog) -> None:
        self._log = log

    @property
    def catalog(self) -> Catalog:
        return self._log.catalog


def parse_endpoint(text: str) -> Endpoint:
    """Read ``HOST:PORT``, or ``https://HOST[:PORT]`` for a ``web`` endpoint; raises ``UsageError``."""
    place = text.removeprefix("https://")
    web = place != text
    bare = web and not place.rpartition(":")[2].isdigit()
    host, _, port = (f"{place}:443" if bare else place).rpartition(":")
    try:
        return msgspec.convert([host.strip("[]"), int(port), web], Endpoint)
    except (ValueError, msgspec.ValidationError) as error:
        message = f"{text!r} is no HOST:PORT, like films.example:7433, and no https://HOST"
        raise UsageError(message) from error


def parse_key(text: str) -> bytes:
    """Read a box's id, ``12D3KooW...``; raises ``UsageError``."""
    try:
        return parse_peer_id(text)
    except RemoteError as error:
        message = f"{text!r} is no box's id; `farcast key show` prints it there"
        raise UsageError(message) from error


def parse_cdn(text: str) -> str:
    """Read a CDN pull zone's base URL; raises ``UsageError``."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        whole = whole and not parts.query and not parts.fragment
    except ValueError:
        whole = False
    whole = whole and bare(text) == text.rstrip("/")  # tokens come from [cdn] zones
    if not whole or not text.isprintable() or len(text) > CDN_LIMIT_CHARS:
        raise UsageError(f"{text!r} is no base URL, like https://cdn.example/films")
    return text


def _played_segments(manifest: Manifest) -> int:
    """Count the segments one full playback fetches: the best picture's and one sound's."""
    best = {
        kind: max((r for r in manifest.renditions if r.kind == kind), key=lambda r: r.bandwidth, default=None)
        for kind in ("video", "audio")
    }
    return sum(rendition.segments for rendition in best.values() if rendition is not None)


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).date().isoformat()
