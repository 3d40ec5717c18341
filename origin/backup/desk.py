"""The backup desk: all that is this origin, said and handed to ``Backup``."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ...node.report import Report
from ...protocol.catalog import open_entry
from ..action import Actions, Result
from ..keys import Keys
from ..log import CatalogLog
from ..money.treasury import Treasury
from ..sealedfile import SALT_BYTES
from ..title.shelf import Shelf
from .backup import Backup


class BackupDesk:
    """Writes backups of the origin in ``home``, whose lock the caller holds."""

    def __init__(
        self,
        home: Path,
        keys: Keys,
        log: CatalogLog,
        shelf: Shelf,
        treasury: Treasury,
        clock_ms: Callable[[], int],
    ) -> None:
        self.home = home
        self.keys = keys
        self.log = log
        self.shelf = shelf
        self.treasury = treasury
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {"backup": self.backup}

    def backup(self, file: str, passphrase: str, *, blocks: bool = False, progress: Report) -> Result:
        """Write everything this origin needs to ``file``, an absolute path, under ``passphrase``."""
        settled, catalog = self.treasury.settled(), self.log.catalog
        size = catalog.size
        summary: Result = {
            "v": 1,
            "name": self.keys.keyring.name,
            "peer_id": self.keys.box.peer_id,
            "made": datetime.fromtimestamp(self._clock_ms() / 1_000, UTC).isoformat(timespec="seconds"),
            "catalog": {"size": size, "root": catalog.tree.root(size).hex()},
            "settled": settled,
            "ledger": "postgresql" if self.treasury.address else "sqlite",
            "blocks": blocks,
        }
        named = {open_entry(data).cid for data in catalog.entries[:size]}
        found = ((str(cid), self.shelf.store.get(cid)) for cid in sorted(named, key=str))
        manifests = ((name, data) for name, data in found if data is not None)
        backup = Backup(
            self.home, summary, self.keys.repository.files(), manifests, blocks=blocks,
            books=self.treasury.address,
        )  # fmt: skip
        files, size_bytes = backup.write(Path(file), passphrase, secrets.token_bytes(SALT_BYTES), progress)
        return {
            "file": file,
            "bytes": size_bytes,
            "files": files,
            "blocks": blocks,
            "ledger": summary["ledger"],
            "settled": max(summary["settled"], default=None),
            "catalog_entries": size,
        }
