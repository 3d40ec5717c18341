"""Recipes: how to make completed generations again, for a neighbour that missed symbols of them.

The blocks are in the store, so only names and the small items are remembered; a source symbol of RaptorQ
is a piece of the bundle itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

from ..protocol.cid import Cid
from ..protocol.errors import FarcastError
from ..protocol.generation import Item, pack_bundle

RECIPES_LIMIT = 64
SMALL_ITEMS_BYTES = 8_000_000
KEPT_S = 20.0
"""How long a bundle made again is kept for the next piece."""


class _Rebuilt(NamedTuple):
    number: int
    bundle: bytes
    used_at: float


class Recipes:
    """Blocking; ``load`` is the store's ``get``."""

    def __init__(self, load: Callable[[Cid], bytes | None]) -> None:
        self._load = load
        self._recipes: OrderedDict[int, list[Item]] = OrderedDict()
        self._rebuilt: _Rebuilt | None = None

    def remember(self, number: int, items: Sequence[Item]) -> None:
        """Keep how a generation was made; those completed longest ago are forgotten."""
        self._recipes[number] = [
            Item(item.kind, item.name, b"" if item.kind == "block" else item.data) for item in items
        ]
        while len(self._recipes) > RECIPES_LIMIT or self._small_bytes() > SMALL_ITEMS_BYTES:
            self._recipes.popitem(last=False)

    def symbols(self, number: int, symbol_bytes: int, held: bytes, most: int, now: float) -> list[bytes]:
        """Return at most ``most`` source symbols, FEC id first, whose bits are not set in ``held``."""
        bundle = self._bundle(number, now)
        if bundle is None:
            return []
        found: list[bytes] = []
        for at in range(-(-len(bundle) // symbol_bytes)):
            if len(found) == most:
                break
            if at // 8 >= len(held) or not held[at // 8] >> at % 8 & 1:
                piece = bundle[at * symbol_bytes : (at + 1) * symbol_bytes]
                found.append(at.to_bytes(4, "big") + piece.ljust(symbol_bytes, b"\0"))
        return found

    def tidy(self, now: float) -> None:
        """Let go of a bundle that nobody asked for lately."""
        if self._rebuilt is not None and now - self._rebuilt.used_at > KEPT_S:
            self._rebuilt = None

    def _bundle(self, number: int, now: float) -> bytes | None:
        if self._rebuilt is not None and self._rebuilt.number == number:
            self._rebuilt = self._rebuilt._replace(used_at=now)
            return self._rebuilt.bundle
        recipe = self._recipes.get(number)
        if recipe is None:
            return None
        self._rebuilt = None
        items: list[Item] = []
        try:
            for item in recipe:
                data = self._load(Cid.parse(item.name)) if item.kind == "block" else item.data
                if data is None:
                    return None
                items.append(Item(item.kind, item.name, data))
            bundle = pack_bundle(items)
        except FarcastError:
            return None
        if int.from_bytes(sha256(bundle).digest()[:8], "big") != number:
            return None
        self._rebuilt = _Rebuilt(number, bundle, now)
        return bundle

    def _small_bytes(self) -> int:
        return sum(len(item.data) for recipe in self._recipes.values() for item in recipe)
