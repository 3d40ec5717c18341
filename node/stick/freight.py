"""Freight: what goes onto a stick and comes from it, as the two sides of this room name it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ...protocol.batch import Ack
from ...protocol.cid import Cid
from ...protocol.generation import Item
from ...protocol.ports import BlockStore, Spool, TierName

KEEP = "keep/"
"""The label under which a title's blocks are kept from eviction, as by `farcast keep`."""


class Report(Protocol):
    """Hears how far the work is."""

    def __call__(self, stage: str, done: float, total: float = 1.0) -> None:
        """Hear that of a stage's ``total`` so much is ``done``."""
        ...


class Shelf(BlockStore, Protocol):
    """A block store that also tells sizes and keeps blocks from eviction."""

    def size(self, cid: Cid) -> int | None:
        """Return a held block's size in bytes."""
        ...

    def put(self, cid: Cid, data: bytes, *, tier: TierName | None = None, hashed: bool = False) -> bool:
        """Keep a block; ``hashed`` says that the caller has just compared its hash."""
        ...

    def pin(self, label: str, cids: Iterable[Cid]) -> None:
        """Keep blocks, held or to come, under a label."""
        ...


class Title(NamedTuple):
    """A title to export: every block of it, the manifest's first, then its folder depth first."""

    title: str
    root: Cid
    cids: Sequence[Cid]


class Cargo(NamedTuple):
    """What a box has to give: who its origin is, the heads, and the titles asked for."""

    box: bytes
    name: str
    heads: Sequence[Item]
    titles: Sequence[Title]
    listed: frozenset[str]
    """Every title the catalog lists: whatever else a stick has was retired or taken down."""
    signed_ms: int
    """When the newest checkpoint was signed: a time that has surely come."""


class Customs(Protocol):
    """Through whom everything that comes from a stick has to pass; all of it blocks."""

    def take_heads(self, items: Sequence[Item]) -> str:
        """Verify and take trust, catalog, directory, beacons and manifests; returns what hindered it.

        Raises:
            RemoteError: without these keys nothing else on the stick can be verified.

        """
        ...

    def listed(self) -> Mapping[str, tuple[Cid, Cid]]:
        """Return each title's manifest and root, as far as the verified catalog and its manifests tell."""
        ...

    def take_pulses(self, post: bytes) -> int:
        """Verify and spool a post of pulses; returns how many are authentic. Raises ``FarcastError``."""
        ...

    def take_acks(self, acks: Sequence[bytes]) -> int:
        """Verify and apply acks; returns how many pulses that let go."""
        ...

    def signed_ms(self) -> int:
        """Return when the newest checkpoint was signed, 0 before the first."""
        ...


class Depot(NamedTuple):
    """A box as this room sees it."""

    store: Shelf
    spool: Spool
    open_ack: Callable[[bytes], Ack]
    clock_ms: Callable[[], int]


class ExportedTitle(NamedTuple):
    """One title on the stick; ``written_bytes`` are new there."""

    title: str
    bytes: int
    written_bytes: int


class Exported(NamedTuple):
    """What an export did: ``pulses`` written now, ``acks`` the stick carries."""

    folder: str
    titles: list[ExportedTitle]
    pulses: int
    acks: int

    def facts(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return {**self._asdict(), "titles": [one._asdict() for one in self.titles]}


class ImportedTitle(NamedTuple):
    """One title of a stick; ``missing_blocks`` are neither here nor on the stick."""

    title: str
    blocks: int
    new_blocks: int
    new_bytes: int
    missing_blocks: int


class Spoilt(NamedTuple):
    """A file of a stick that was left out, and why."""

    file: str
    why: str


class Imported(NamedTuple):
    """What an import did: ``pulses`` of others' taken, ``settled`` of this box's that its acks let go."""

    folder: str
    titles: list[ImportedTitle]
    pulses: int
    settled: int
    returned: int
    """Pulses of the stick whose acks it carries back now."""
    note: str
    """What hindered the heads, empty for nothing."""
    damaged: list[Spoilt]

    def facts(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return {
            **self._asdict(),
            "titles": [one._asdict() for one in self.titles],
            "damaged": [one._asdict() for one in self.damaged],
        }
