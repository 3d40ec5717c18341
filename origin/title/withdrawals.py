"""The withdrawals: titles taken off the list, taken down or deleted, and each tier asked how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...node.report import Report
from ...protocol.cid import Cid
from ...protocol.errors import UsageError
from ..action import Actions, Result
from ..cdn.edges import Edges
from ..cdn.paths import title_paths
from ..keys import Keys
from ..mirror import Mirror
from ..roster import Roster
from ..withdrawal import WAIT_S, Row, Withdrawal
from .shelf import Shelf


class Withdrawals:
    """Takes titles from the ``shelf``, the ``edges``, the ``mirror`` and the ``roster``'s relays.

    ``serving`` says whether this origin runs, so that relays can hear of it at once.
    """

    def __init__(
        self,
        shelf: Shelf,
        keys: Keys,
        roster: Roster,
        edges: Edges,
        mirror: Mirror | None,
        serving: Callable[[], bool],
        clock_ms: Callable[[], int],
    ) -> None:
        self.shelf = shelf
        self.log = shelf.log
        self.keys = keys
        self.roster = roster
        self.edges = edges
        self._mirror = mirror
        self._serving = serving
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {"retire": self.retire, "deny": self.deny, "purge": self.purge}

    def retire(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Take a title off the list; whoever holds it may keep playing it."""
        entry = self.log.catalog.titles().get(title)
        if entry is None:
            raise UsageError(f"no title {title!r} is listed; `farcast origin list` shows them")
        manifest = self.shelf.manifest(entry)
        withdrawal = self._withdrawal(title, [manifest.root_cid], bytes_leave=False, entries=1)
        self.log.append("retire", title, entry.cid, self._clock_ms())
        self.shelf.let_go(title, [manifest.root_cid], self.log.catalog.versions(title))
        row = self._unpinned(withdrawal, [manifest.root_cid, entry.cid])
        return self._followed(withdrawal, title, "retire", "unlisted", progress, wait_s, row)

    def deny(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Take a title down, every version of it: boxes that follow this catalog stop serving it."""
        versions = self.log.catalog.versions(title)
        if not versions:
            message = f"no title {title!r} was published here that is not taken down already"
            raise UsageError(f"{message}; `farcast origin list` shows them")
        roots = self.shelf.roots(versions)
        withdrawal = self._withdrawal(title, roots, bytes_leave=True, entries=len(versions))
        for cid in versions:
            self.log.append("deny", title, cid, self._clock_ms())
        self._list_purge(title, versions, roots)
        dropped = self.shelf.takedown.enforce()
        self.shelf.let_go(title, roots, versions)
        row = self._unpinned(withdrawal, [*roots, *versions])
        found = self._followed(withdrawal, title, "deny", "gone", progress, wait_s, row)
        return {**found, "versions": len(versions), "dropped_blocks": dropped}

    def purge(self, title: str, *, progress: Report, wait_s: float = WAIT_S) -> Result:
        """Delete here what only a title off the list needs, and say who still has it."""
        if self.log.catalog.listed(title) is not None:
            message = f"{title} is listed; `farcast origin retire {title}` takes it off the list first"
            raise UsageError(message)
        versions = self.log.catalog.versions(title, denied=True)
        drafted = self.shelf.drafts.find(title) is not None
        if not versions and not drafted:
            raise UsageError(f"no title {title!r} was ever published here")
        self.shelf.drafts.drop(title)
        roots = self.shelf.roots(versions)
        withdrawal = self._withdrawal(title, roots, bytes_leave=True, entries=0)
        self.shelf.let_go(title, roots, versions)
        self._list_purge(title, versions, roots)
        dropped = sum(self.shelf.store.drop(cid) for cid in self.shelf.takedown.alone(versions))
        row = self._unpinned(withdrawal, [*roots, *versions])
        found = self._followed(withdrawal, title, "purge", "gone", progress, wait_s, row)
        return {**found, "dropped_blocks": dropped}

    def _list_purge(self, title: str, versions: Sequence[Cid], roots: Sequence[Cid]) -> None:
        """Note what pull zones must let go of while the folders that tell are still here."""
        zones = [base for base in self.keys.keyring.cdn if self.edges.purges(base)]
        if zones:
            blocks = self.shelf.takedown.alone(versions) | frozenset(self.shelf.unlisted(*versions, *roots))
            self.edges.remember(title, zones, title_paths(title, roots, blocks, self.shelf.store.get))

    def _withdrawal(self, title: str, roots: Sequence[Cid], *, bytes_leave: bool, entries: int) -> Withdrawal:
        return Withdrawal(
            title,
            roots,
            self.log.catalog.size + entries,
            self.keys.keyring,
            self.edges,
            bytes_leave=bytes_leave,
            allow_private=self.shelf.settings.network.allow_private,
        )

    def _unpinned(self, withdrawal: Withdrawal, cids: Sequence[Cid]) -> list[Row]:
        """Let the publisher's Kubo, if there is one, forget what no listed title needs."""
        if self._mirror is None:
            return []
        problem = self._mirror.remove(self.shelf.unlisted(*cids))
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
        asked = relays if self._serving() else []  # nobody hears of it from an origin at rest
        rows += [Row("relay", relay.peer_id, "not asked", None, "") for relay in relays if relay not in asked]
        rows += withdrawal.follow(asked, progress, wait_s=min(max(wait_s, 0.0), WAIT_S))
        return {
            "title": title,
            "action": action,
            "entries": self.log.catalog.size,
            "tiers": [row.facts() for row in rows],
            "failed": [row.name for row in rows if row.failed],
        }
