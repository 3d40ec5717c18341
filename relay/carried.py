"""Which publishers a relay carries, and how many bytes of each (sans-IO)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..node.settingvalue import read_size

EVERYONE = "*"


class Share(NamedTuple):
    """What a title takes of its publisher's budget."""

    publisher: str
    size_bytes: int


class Carried:
    """The ``[contract] publishers`` list: ids or ``*``, each with a budget in bytes or none."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Read what the settings have checked; an empty list carries everybody."""
        self._budgets: dict[str, int | None] = {}
        for text in texts:
            name, _, size = (part.strip() for part in text.partition("="))
            self._budgets[name] = read_size(size) if size else None
        if not texts:
            self._budgets[EVERYONE] = None

    @property
    def bounded(self) -> bool:
        """Whether the list leaves anybody out or bounds anybody at all."""
        return EVERYONE not in self._budgets or any(budget is not None for budget in self._budgets.values())

    def carries(self, publisher: str) -> bool:
        """Say whether titles of ``publisher`` (a peer id) are fetched at all."""
        return publisher in self._budgets or EVERYONE in self._budgets

    def budget(self, publisher: str) -> int | None:
        """Return the bytes that titles of ``publisher`` may take; None where only the quota bounds them."""
        return self._budgets.get(publisher, self._budgets.get(EVERYONE))


class Budgets:
    """Knows what each title takes, and which to let go of so that every publisher keeps to his budget."""

    def __init__(self, carried: Carried) -> None:
        self.carried = carried
        self._shares: dict[str, Share] = {}
        self._used: OrderedDict[str, None] = OrderedDict()

    def measured(self, shares: Mapping[str, Share]) -> None:
        """Hear what every title takes on the disk."""
        self._shares = dict(shares)
        for title in [title for title in self._used if title not in shares]:
            del self._used[title]

    def publishers(self) -> list[str]:
        """Return the publishers of the titles known, in order."""
        return sorted({share.publisher for share in self._shares.values()})

    def held_bytes(self, publisher: str) -> int:
        """Return what titles of ``publisher`` take."""
        return sum(share.size_bytes for share in self._shares.values() if share.publisher == publisher)

    def used(self, title: str, publisher: str, size_bytes: int = 0) -> None:
        """Hear that somebody asked for ``title``, and that so many bytes of it came in."""
        self._used[title] = None
        self._used.move_to_end(title)
        before = self._shares.get(title, Share(publisher, 0))
        self._shares[title] = Share(publisher, before.size_bytes + size_bytes)

    def over(self) -> list[str]:
        """Return titles to let go of, the longest unused first, until everybody is within his budget.

        The last title used of a publisher is among them only where it is over the budget by itself;
        all of a publisher who is no longer carried is.
        """
        found: list[str] = []
        order = {title: at for at, title in enumerate(self._used)}
        for publisher in {share.publisher for share in self._shares.values()}:
            budget = self.carried.budget(publisher) if self.carried.carries(publisher) else 0
            if budget is None:
                continue
            excess = self.held_bytes(publisher) - budget
            mine = [title for title, share in self._shares.items() if share.publisher == publisher]
            for title in sorted(mine, key=lambda title: (order.get(title, -1), title)):
                if excess <= 0:
                    break
                if self._shares[title].size_bytes:
                    excess -= self._shares[title].size_bytes
                    found.append(title)
        return found

    def dropped(self, title: str, size_bytes: int) -> None:
        """Hear that so many bytes of ``title`` were let go of."""
        share = self._shares.get(title)
        if share is not None:
            self._shares[title] = share._replace(size_bytes=max(0, share.size_bytes - size_bytes))
