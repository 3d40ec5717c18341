"""The split of a pool: over leaves, and within a leaf over accounts where a flag or a cap asks for it.

Pure. A leaf's weight is the viewed time of its titles times the payee's basis points. Accounts are
looked at one leaf at a time and only as often as a rule needs it, so a month of many accounts costs a
sum for each of them and the room of one leaf.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from ...protocol.audit import shares_of
from ...protocol.manifest import Manifest
from ...protocol.rules import Rules
from ...protocol.shares import apportion
from ...protocol.statement import Line
from .viewing import Viewing

Leaf = tuple[bytes, str, str]
"""Platform, payee, month of viewing."""
Cuts = Mapping[Leaf, Mapping[bytes, int]]
"""What the per-payer cap cuts, by leaf and account."""


class Weights:
    """Viewed ms times basis points of each leaf, and of each account within it."""

    def __init__(self, viewing: Viewing, titles: Mapping[bytes, Manifest]) -> None:
        self._parts: dict[Leaf, list[tuple[Mapping[bytes, int], int]]] = defaultdict(list)
        self.sums: dict[Leaf, int] = defaultdict(int)
        for watched in (viewing.ms, viewing.carried_ms):
            for (digest, month), accounts in watched.items():
                manifest, ms = titles[digest], sum(accounts.values())
                for payee in manifest.payees:
                    leaf = (manifest.publisher, payee.payee, month)
                    self._parts[leaf].append((accounts, payee.points))
                    self.sums[leaf] += ms * payee.points

    def of(self, leaf: Leaf) -> dict[bytes, int]:
        """Return each account's weight within a leaf."""
        weights: dict[bytes, int] = defaultdict(int)
        for accounts, points in self._parts[leaf]:
            for account, ms in accounts.items():
                weights[account] += ms * points
        return weights

    def among(self, leaf: Leaf, accounts: Iterable[bytes]) -> list[bytes]:
        """Return which of these accounts watched anything of a leaf."""
        return [account for account in accounts if any(account in part for part, _ in self._parts[leaf])]


class Split:
    """The pool split by the rules' mode and by payer."""

    def __init__(
        self,
        pool_cents: int,
        weights: Weights,
        contributions: Mapping[bytes, int],
        rules: Rules,
    ) -> None:
        """Split ``pool_cents``; ``contributions`` are what each account brought, empty where nobody knows."""
        self._weights = weights
        self._rules = rules
        self._leaves = sorted(weights.sums)
        self._by_payer = self._split_by_payer(pool_cents, contributions) if contributions else {}
        self._own = {leaf: sum(self._by_payer.get(leaf, {}).values()) for leaf in self._leaves}
        self._shares = self._own if rules.mode == "per_payer" else shares_of(pool_cents, dict(weights.sums))

    def capped(self, caps: Mapping[bytes, int]) -> dict[Leaf, dict[bytes, int]]:
        """Return what is cut of each account's part of each leaf, so that it moves no more than its cap.

        Whoever is not in ``caps`` may move nothing.
        """
        moved: dict[bytes, int] = defaultdict(int)
        for leaf in self._leaves:
            for account, cents in self._accounts(leaf).items():
                moved[account] += cents
        over = {account for account, cents in moved.items() if cents > caps.get(account, 0)}
        parts: dict[bytes, dict[str, int]] = defaultdict(dict)
        for leaf in self._leaves if over else ():
            accounts = self._accounts(leaf)
            for account in accounts.keys() & over:
                parts[account][_label(leaf)] = accounts[account]
        leaves = {_label(leaf): leaf for leaf in self._leaves}
        cut: dict[Leaf, dict[bytes, int]] = defaultdict(dict)
        for account in sorted(over):
            kept = apportion(caps.get(account, 0), parts[account])
            for label, cents in parts[account].items():
                cut[leaves[label]][account] = cents - kept[label]
        return cut

    def held(self, flagged: Iterable[bytes], cut: Cuts) -> dict[Leaf, dict[bytes, int]]:
        """Return what the cap leaves of each flagged account's part of each leaf."""
        listed = list(flagged)
        held: dict[Leaf, dict[bytes, int]] = {}
        for leaf in self._leaves:
            if here := self._weights.among(leaf, listed):
                accounts, gone = self._accounts(leaf), cut.get(leaf, {})
                held[leaf] = {account: accounts.get(account, 0) - gone.get(account, 0) for account in here}
        return held

    def lines(self, cut: Cuts, held: Mapping[Leaf, Mapping[bytes, int]]) -> Iterator[Line]:
        """Yield the leaves in order; what is held of one is never paid or given to others."""
        for leaf in self._leaves:
            share = self._shares[leaf]
            cut_cents, held_cents = sum(cut.get(leaf, {}).values()), sum(held.get(leaf, {}).values())
            yield Line(
                *leaf,
                weight=self._weights.sums[leaf],
                share_cents=share,
                paid_cents=share - held_cents - cut_cents,
                held_cents=held_cents,
                capped_cents=cut_cents,
                per_payer_cents=self._own[leaf],
            )

    def _accounts(self, leaf: Leaf) -> Mapping[bytes, int]:
        """Return each account's part of a leaf."""
        if self._rules.mode == "per_payer":
            return self._by_payer.get(leaf, {})
        return apportion(self._shares[leaf], self._weights.of(leaf))

    def _split_by_payer(
        self, pool_cents: int, contributions: Mapping[bytes, int]
    ) -> dict[Leaf, dict[bytes, int]]:
        """Split each account's part of the pool by its own viewing; who watched nothing moves nothing."""
        watched: dict[bytes, dict[str, int]] = defaultdict(dict)
        leaves = {_label(leaf): leaf for leaf in self._leaves}
        for label, leaf in leaves.items():
            weights = self._weights.of(leaf)
            for account in weights.keys() & contributions.keys():
                watched[account][label] = weights[account]
        found: dict[Leaf, dict[bytes, int]] = {leaf: {} for leaf in self._leaves}
        for account, cents in apportion(pool_cents, dict(contributions)).items():
            for label, part in apportion(cents, watched.get(account, {})).items():
                found[leaves[label]][account] = part
        return found


def _label(leaf: Leaf) -> str:
    """Return a leaf's name; ties between cents go by it, as they always did."""
    platform, payee, month = leaf
    return f"{platform.hex()} {payee} {month}"
