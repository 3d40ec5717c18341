"""The programme: cuts what an origin publishes into generations and makes their bundles anew when due.

Blocks stay in the store; only names and digests are remembered, so a catalog of any size can be on
air. The cut is a function of the content alone: an unchanged title keeps its generation numbers, and
receivers keep what they have collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from ..protocol.cid import Cid
from ..protocol.errors import LocalError, UsageError
from ..protocol.generation import BUNDLE_LIMIT_ITEMS, SYMBOL_BYTES, Item, describe, pack_bundle
from .rota import Feature, Planned

HEAD_BYTES = 2_000_000
"""Head generations stay this small: a receiver without keys accepts no larger ones."""
GENERATION_BYTES = 16_000_000
GENERATION_MIN_BYTES, GENERATION_MAX_BYTES = 100_000, 20_000_000
"""A block larger than the wish makes a generation of its own, of at most 2 MiB and a little."""
_ITEM_OVERHEAD_BYTES = 32

Load = Callable[[Cid], bytes | None]


class Show(NamedTuple):
    """A title to put on air: its blocks in order; the greater its weight, the more often it comes."""

    label: str
    cids: Sequence[Cid]
    weight: float = 1.0


class Part(NamedTuple):
    """One generation's recipe: the items themselves (head), or the blocks to load (titles)."""

    plan: Planned
    items: tuple[Item, ...]
    cids: tuple[Cid, ...]


class Programme:
    """Plans generations; blocking, because it reads every block of a new title once.

    ``load`` is the store's ``get``; ``generation_bytes`` bounds a title's generation.
    """

    def __init__(
        self,
        load: Load,
        origin: bytes,
        *,
        generation_bytes: int = GENERATION_BYTES,
        head_bytes: int = HEAD_BYTES,
    ) -> None:
        if not GENERATION_MIN_BYTES <= generation_bytes <= GENERATION_MAX_BYTES:
            allowed = f"{GENERATION_MIN_BYTES} to {GENERATION_MAX_BYTES}"
            msg = f"[satellite] generation_bytes is {generation_bytes}; set it from {allowed}"
            raise UsageError(msg, reason="bad_generation_bytes")
        self._load = load
        self._origin = origin
        self._generation_bytes = generation_bytes
        self._head_bytes = head_bytes
        self._titles: dict[tuple[Cid, ...], list[Part]] = {}
        self.missing = 0

    def head(self, items: Sequence[Item]) -> list[Part]:
        """Cut the urgent items, in their order, into small generations."""
        parts: list[Part] = []
        for run in _runs(items, self._head_bytes):
            plan = self._plan("head", pack_bundle(run))
            parts.append(Part(plan, tuple(run), ()))
        return _distinct(parts)

    def titles(self, shows: Sequence[Show]) -> tuple[list[Feature], list[Part]]:
        """Cut each title's blocks, in their order, into generations; ``missing`` counts blocks not here.

        A generation that two titles share goes with the first.
        """
        self.missing = 0
        kept: dict[tuple[Cid, ...], list[Part]] = {}
        features: list[Feature] = []
        planned: set[int] = set()
        for label, cids, weight in shows:
            key = tuple(dict.fromkeys(cids))
            kept[key] = self._titles.get(key) or self._cut(label, key)
            plans = [part.plan for part in kept[key] if part.plan.number not in planned]
            planned.update(plan.number for plan in plans)
            features.append(Feature(label, tuple(plan._replace(label=label) for plan in plans), weight))
        self._titles = {
            key: parts for key, parts in kept.items() if sum(len(p.cids) for p in parts) == len(key)
        }
        return features, _distinct(part for parts in kept.values() for part in parts)

    def bundle(self, part: Part) -> bytes:
        """Make a generation's bundle again.

        Raises:
            LocalError: ``changed`` where blocks have gone from the store since the plan.

        """
        items = part.items or tuple(self._items(part.cids))
        data = pack_bundle(items)
        if int.from_bytes(sha256(data).digest()[:8], "big") != part.plan.number:
            self._titles.clear()
            raise LocalError(f"blocks of {part.plan.label} have gone from the store", reason="changed")
        return data

    def _cut(self, label: str, cids: tuple[Cid, ...]) -> list[Part]:
        parts: list[Part] = []
        for run in _runs(self._items(cids), self._generation_bytes):
            plan = self._plan(label, pack_bundle(run))
            parts.append(Part(plan, (), tuple(Cid.parse(item.name) for item in run)))
        self.missing += len(cids) - sum(len(part.cids) for part in parts)
        return parts

    def _items(self, cids: Iterable[Cid]) -> Iterable[Item]:
        for cid in cids:
            data = self._load(cid)
            if data is not None:
                yield Item("block", str(cid), data)

    def _plan(self, label: str, bundle: bytes) -> Planned:
        described = describe(bundle, self._origin, SYMBOL_BYTES, 0)
        return Planned(described.number, label, len(bundle), described.symbols, SYMBOL_BYTES)


def _runs(items: Iterable[Item], limit_bytes: int) -> Iterable[list[Item]]:
    run: list[Item] = []
    size = _ITEM_OVERHEAD_BYTES
    for item in items:
        cost = len(item.name) + len(item.data) + _ITEM_OVERHEAD_BYTES
        if run and (size + cost > limit_bytes or len(run) == BUNDLE_LIMIT_ITEMS):
            yield run
            run, size = [], _ITEM_OVERHEAD_BYTES
        run.append(item)
        size += cost
    if run:
        yield run


def _distinct(parts: Iterable[Part]) -> list[Part]:
    return list({part.plan.number: part for part in parts}.values())
