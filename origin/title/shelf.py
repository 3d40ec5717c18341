"""The shelf: what was published here, in the home's blocks, and what of it is still listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from ...node.blocks.store import DiskStore
from ...node.catalog.takedown import Takedown
from ...node.settings import Settings
from ...protocol.catalog import Catalog, Entry
from ...protocol.cid import RAW, Cid
from ...protocol.errors import LocalError, RemoteError
from ...protocol.manifest import Manifest, open_manifest
from ..log import CatalogLog
from ..publish import manifest_label, pin_label
from ..studio.drafts import Drafts


class Shelf:
    """Finds manifests of what ``log`` names; without a ``store`` the home's own is opened when needed."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        log: CatalogLog,
        registry: CollectorRegistry,
        store: DiskStore | None = None,
    ) -> None:
        self.home = home
        self.settings = settings
        self.log = log
        self._registry = registry
        self._own_store: DiskStore | None = None
        self._given_store = store
        self._takedown: Takedown | None = None

    def close(self) -> None:
        """Close the home's store where this opened it."""
        if self._own_store is not None:
            self._own_store.close()

    @property
    def store(self) -> DiskStore:
        """The home's blocks."""
        if self._given_store is not None:
            return self._given_store
        if self._own_store is None:
            self._own_store = DiskStore(self.home, self.settings.store.quota_bytes, self._registry)
        return self._own_store

    @property
    def drafts(self) -> Drafts:
        """The titles that are not in the catalog yet."""
        return Drafts(self.home / "drafts", self.store)

    @property
    def takedown(self) -> Takedown:
        """What was taken down here; the manifests stay, because settling needs them."""
        if self._takedown is None:
            folder = self.home / "takedown"
            self._takedown = Takedown(
                folder, _Heads(self.log), self.store, self._registry, spares_manifests=True
            )
            self._takedown.load()
        return self._takedown

    def manifest(self, entry: Entry) -> Manifest:
        """Return the manifest a catalog entry names; raises ``LocalError`` where it is gone."""
        data = self.store.get(entry.cid)
        if data is None:
            message = (
                f"the manifest of {entry.title} is gone from {self.home}/blocks; bring it back from a backup"
            )
            raise LocalError(message, reason="no_manifest")
        return open_manifest(data)

    def manifest_of(self, digest: bytes) -> Manifest | None:
        """Return the manifest whose block has this SHA-256 digest, if it was published here."""
        data = self.store.get(Cid(RAW, digest))
        try:
            return open_manifest(data) if data is not None else None
        except RemoteError:
            return None  # a pulse may name any block; one that is no manifest is worth nothing

    def roots(self, manifests: Sequence[Cid]) -> list[Cid]:
        """Return the folders of those manifests that are here."""
        found = (self.manifest_of(cid.digest) for cid in manifests)
        return [manifest.root_cid for manifest in found if manifest is not None]

    def unlisted(self, *cids: Cid) -> list[Cid]:
        """Return those of ``cids`` that no listed title has as its root or manifest."""
        listed: set[Cid] = set()
        for entry in self.log.catalog.titles().values():
            manifest = self.manifest_of(entry.cid.digest)
            listed |= {entry.cid} | ({manifest.root_cid} if manifest else set())
        return [cid for cid in cids if cid not in listed]

    def let_go(self, title: str, roots: Sequence[Cid], manifests: Sequence[Cid]) -> None:
        """Pin folders of a title no longer; its manifests stay: late pulses name them."""
        for cid in manifests:  # a home of before may keep them with their folder alone
            self.store.pin(manifest_label(cid), [cid])
        for root in roots:
            self.store.unpin(pin_label(title, root))


class _Heads:
    """The catalog alone, for parts that need no signed heads."""

    def __init__(self, log: CatalogLog) -> None:
        self._log = log

    @property
    def catalog(self) -> Catalog:
        return self._log.catalog
