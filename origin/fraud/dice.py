"""Dice: chance from a seed, the same on every machine and in every version of Python."""

from __future__ import annotations

from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")

_WORD_BYTES = 8


class Dice:
    """An endless row of numbers that SHA-256 makes of a seed; one name, one row."""

    def __init__(self, seed: int, name: str) -> None:
        self._start = sha256(f"farcast simulate {name} {seed}".encode())
        self._thrown = 0

    def bytes(self, size: int) -> bytes:
        """Return up to 32 fresh bytes."""
        self._thrown += 1
        word = self._start.copy()
        word.update(self._thrown.to_bytes(_WORD_BYTES, "big"))
        return word.digest()[:size]

    def between(self, least: int, most: int) -> int:
        """Return a whole number from ``least`` to ``most``, both included."""
        return least + int.from_bytes(self.bytes(_WORD_BYTES), "big") % (most - least + 1)

    def one_in(self, times: int) -> bool:
        """Say yes once in so many times."""
        return self.between(1, times) == 1

    def shuffled(self, items: list[T]) -> list[T]:
        """Return the items in another order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.between(0, last)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
