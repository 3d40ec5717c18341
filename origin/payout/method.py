"""The port to whoever moves the money: what a payout method is asked, and the names it goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from .order import Order, Verdict
from .terms import Terms


class Errand(NamedTuple):
    """An order with the terms that hold as it leaves."""

    order: Order
    terms: Terms


class Delivery(Protocol):
    """Orders made ready to leave together; what it holds meanwhile is let go at the end of a ``with``.

    ``reference`` is the method's own word for them where it has one before they leave: such orders are
    not taken for lost when no answer comes.
    """

    reference: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def go(self) -> Verdict:
        """Let them leave, once the books say so; the verdict is of every one of them. Never raises."""
        ...

    def drop(self) -> None:
        """Forget them: the books say that somebody else sends them."""
        ...


class Method(Protocol):
    """One way to pay. Every method blocks, within ``LEASE_MS``.

    ``looks_up`` where a key can be asked for; otherwise a person says how an order ended. ``together``
    is how many orders one delivery takes at most.
    """

    looks_up: bool
    together: int

    def trouble(self) -> str:
        """Say why nobody can be paid this way now, naming the mend; empty where all is well."""
        ...

    def fault(self, terms: Terms) -> str:
        """Say what a payee's terms lack to be paid this way; empty where nothing."""
        ...

    def recover(self, was_sent: Callable[[str], bool]) -> None:
        """Finish or undo what was broken off; ``was_sent`` says whether orders of a reference have left."""
        ...

    def prepare(self, errands: Sequence[Errand], now_ms: int) -> Delivery:
        """Make orders ready without letting any of them leave.

        Raises:
            LocalError: where that is not possible now; nothing is left behind.

        """
        ...

    def find(self, order: Order) -> Verdict:
        """Ask for the order's key. Never raises."""
        ...


Methods = Mapping[str, Method]
"""By name, as ``farcast origin payee add --method`` takes it."""
