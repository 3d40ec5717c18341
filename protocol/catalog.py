"""The catalog: an append-only Merkle log of what an origin publishes, and what that adds up to.

Leaves are the canonical bytes of ``Entry``; the head is a checkpoint (``protocol/note.py``) signed
by the catalog key. A follower keeps every entry, so it recomputes the root itself: rollback shows
as a smaller size, equivocation as another root for the same prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from .cid import Cid
from .codec import Message, decode, encode
from .errors import RemoteError
from .manifest import CidBytes, Count, TitleId
from .merkle import Tree, leaf_hash
from .note import Checkpoint

ENTRY_LIMIT_BYTES = 512
ENTRIES_PER_PAGE = 4_096


class Entry(Message, frozen=True):
    """One change: ``publish`` and ``supersede`` point at a manifest; ``deny`` is a takedown."""

    v: Literal[1]
    action: Literal["publish", "supersede", "retire", "deny"]
    title: TitleId
    manifest: CidBytes
    at_ms: Count

    @property
    def cid(self) -> Cid:
        """The manifest's CID."""
        return Cid.decode(self.manifest)


class Page(Message, frozen=True):
    """A run of encoded entries from ``start`` on, as ``/v1/catalog/entries`` answers."""

    v: Literal[1]
    start: Count
    entries: Annotated[list[bytes], Meta(max_length=ENTRIES_PER_PAGE)]


def open_entry(data: bytes) -> Entry:
    """Decode one entry, its CID included; raises ``RemoteError`` with a codec reason."""
    entry = decode(Entry, data, limit_bytes=ENTRY_LIMIT_BYTES)
    Cid.decode(entry.manifest)
    return entry


class Catalog:
    """The entries so far, their Merkle tree, and the titles they add up to."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.entries: list[bytes] = []
        self._listed: dict[str, Entry] = {}
        self._denied: set[Cid] = set()
        self._taken_down: set[str] = set()

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.entries)

    @property
    def root(self) -> bytes:
        """The Merkle tree hash over all entries (RFC 9162 section 2.1.1)."""
        return self.tree.root()

    def append(self, entry: Entry) -> int:
        """Add one entry and return its index."""
        data = encode(entry)
        self.entries.append(data)
        self.tree.append(leaf_hash(data))
        self._apply(entry)
        return self.size - 1

    def page(self, start: int, end: int) -> Page:
        """Return entries ``start`` up to but not including ``end``, at most one page."""
        start = max(0, start)
        return Page(1, start, self.entries[start : min(end, start + ENTRIES_PER_PAGE)])

    def extend(self, checkpoint: Checkpoint, start: int, entries: Sequence[bytes]) -> int:
        """Grow to a verified ``checkpoint`` with the encoded ``entries`` from index ``start``.

        All or nothing: the root is compared before anything is kept. Returns how many were new.

        Raises:
            RemoteError: ``rollback`` for a smaller checkpoint, ``equivocation`` where the root
                differs from what the entries hash to, ``gap`` where entries are missing.

        """
        if checkpoint.size < self.size:
            message = f"the catalog shrank from {self.size} to {checkpoint.size} entries"
            raise RemoteError(message, reason="rollback")
        if start > self.size or start + len(entries) < checkpoint.size:
            raise RemoteError("the catalog's entries do not reach its checkpoint", reason="gap")
        fresh = list(entries[self.size - start : checkpoint.size - start])
        decoded = [open_entry(data) for data in fresh]
        trial = self.tree.copy()
        for data in fresh:
            trial.append(leaf_hash(data))
        if trial.root() != checkpoint.root:
            raise RemoteError("the catalog's entries do not hash to its signed root", reason="equivocation")
        self.tree = trial
        self.entries += fresh
        for entry in decoded:
            self._apply(entry)
        return len(fresh)

    def titles(self) -> dict[str, Entry]:
        """Return the entry that holds for each listed title."""
        return dict(self._listed)

    def listed(self, title: str) -> Entry | None:
        """Return the entry that holds for a title, None where it is not listed."""
        return self._listed.get(title)

    def denied(self) -> frozenset[Cid]:
        """Return the manifests taken down."""
        return frozenset(self._denied)

    def taken_down(self, title: str) -> bool:
        """Say whether a title was denied and has not been published again since."""
        return title in self._taken_down

    def versions(self, title: str, *, denied: bool = False) -> list[Cid]:
        """Return every manifest published under a title, oldest first, the ``denied`` ones if so told."""
        entries = [open_entry(data) for data in self.entries]
        found = dict.fromkeys(
            entry.cid
            for entry in entries
            if entry.title == title and entry.action in ("publish", "supersede")
        )
        return [cid for cid in found if denied or cid not in self._denied]

    def _apply(self, entry: Entry) -> None:
        if entry.action in ("publish", "supersede"):
            self._listed[entry.title] = entry
            self._taken_down.discard(entry.title)
            return
        self._listed.pop(entry.title, None)
        if entry.action == "deny":
            self._denied.add(entry.cid)
            self._taken_down.add(entry.title)
