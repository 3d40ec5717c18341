"""Payment by hand: the order is the operator's from the moment it is listed, and they say how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from .method import Errand
from .order import Order, Verdict
from .terms import Terms

REFERENCE = "by hand"


class ByHand:
    """Somebody pays and confirms."""

    looks_up = False
    together = 1_000

    def trouble(self) -> str:
        """Nothing is needed."""
        return ""

    def fault(self, terms: Terms) -> str:
        """Whoever is named can be paid."""
        del terms
        return ""

    def recover(self, was_sent: Callable[[str], bool]) -> None:
        """Nothing can be broken off."""
        del was_sent

    def prepare(self, errands: Sequence[Errand], now_ms: int) -> _Listed:
        """Nothing is to be made."""
        del errands, now_ms
        return _Listed()

    def find(self, order: Order) -> Verdict:
        """Only a person knows."""
        return Verdict("silent", order.reference, "only a person knows")


class _Listed:
    reference = REFERENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is held."""

    def go(self) -> Verdict:
        """Leave it to the operator."""
        return Verdict("pending", REFERENCE)

    def drop(self) -> None:
        """Nothing was made."""
