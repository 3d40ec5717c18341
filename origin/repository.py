"""The TUF repository: the origin's keyring, signed for the world, refreshed before it expires.

Layout and roles follow the TUF specification with consistent snapshots; one target names the keys.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer._crypto_signer import CryptoSigner  # re-exported, but not for type checkers
from tuf.api._payload import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from ..node.catalog.rootfile import LABEL_FIELD, Hint, read_root
from ..node.home import write_whole
from ..node.ladder.tiers import address
from ..protocol.codec import encode
from ..protocol.errors import LocalError
from ..protocol.identity import peer_id
from ..protocol.keyring import KEYRING_TARGET, Keyring, open_keyring

ROOT_DAYS, TARGETS_DAYS, ONLINE_DAYS = 365, 90, 30
"""How long signed metadata holds: the root, the targets, and snapshot with timestamp."""
RENEW_AT = 0.5
"""Online roles are signed again when less than this part of their time is left."""
ROOT_WARNING_DAYS = 60

Seeds = Mapping[str, bytes]
"""Ed25519 seeds by TUF role: ``targets``, ``snapshot``, ``timestamp``."""


class RootState(NamedTuple):
    """How the root of trust stands: its version, expiry, and threshold of keys."""

    version: int
    expires_s: float
    threshold: int
    keys: int


class Repository:
    """The signed files in ``folder``; ``seeds`` are the online roles' keys."""

    def __init__(self, folder: Path, seeds: Seeds) -> None:
        """Open the repository.

        Raises:
            LocalError: ``damaged`` where its files do not fit together.

        """
        self._folder = folder
        self._signers = {role: _signer(seed) for role, seed in seeds.items()}
        self._lock = threading.Lock()
        try:
            self._timestamp = Metadata[Timestamp].from_bytes(self._read("timestamp.json"))
            version = self._timestamp.signed.snapshot_meta.version
            self._snapshot = Metadata[Snapshot].from_bytes(self._read(f"{version}.snapshot.json"))
            version = self._snapshot.signed.meta["targets.json"].version
            self._targets = Metadata[Targets].from_bytes(self._read(f"{version}.targets.json"))
            self.root_bytes = self._read("root.json")
            self.hint: Hint = read_root(self.root_bytes)
            self._root = Metadata[Root].from_bytes(self.root_bytes)
            self.keyring = open_keyring(self._read(f"targets/{self._target_name}"))
            self._files = self._current()
        except (OSError, KeyError, RepositoryError) as error:
            message = (
                f"the trust files in {folder} do not fit together ({error}); bring them back from a backup"
            )
            raise LocalError(message, reason="damaged") from error

    @classmethod
    def create(cls, folder: Path, keyring: Keyring, *, root: bytes, seeds: Seeds, now: float) -> Repository:
        """Make a repository in a new ``folder``: ``root`` is the seed of the 1-of-1 root key."""
        (folder / "targets").mkdir(mode=0o700, parents=True)
        signers = {role: _signer(seed) for role, seed in {"root": root, **seeds}.items()}
        label = {
            "name": keyring.name,
            "peer_id": peer_id(keyring.box),
            "endpoints": [address(endpoint) for endpoint in keyring.endpoints if not endpoint.web],
            "settlement": [peer_id(key) for key in keyring.settlement],
            "intake": [peer_id(key) for key in keyring.intake],
        }
        signed = Root(
            version=1, expires=_after(now, ROOT_DAYS), consistent_snapshot=True,
            unrecognized_fields={LABEL_FIELD: label},
        )  # fmt: skip
        for role, signer in signers.items():
            signed.add_key(signer.public_key, role)
        data = _sealed(Metadata(signed), signers["root"])
        for name in ("1.root.json", "root.json"):
            write_whole(folder / name, data)
        target = encode(keyring)
        targets = Targets(version=1, expires=_after(now, TARGETS_DAYS))
        targets.targets[KEYRING_TARGET] = TargetFile.from_data(KEYRING_TARGET, target, ["sha256"])
        snapshot = Snapshot(version=1, expires=_after(now, ONLINE_DAYS))
        timestamp = Timestamp(version=1, expires=_after(now, ONLINE_DAYS))
        write_whole(folder / "targets" / f"{sha256(target).hexdigest()}.{KEYRING_TARGET}", target)
        write_whole(folder / "1.targets.json", _sealed(Metadata(targets), signers["targets"]))
        write_whole(folder / "1.snapshot.json", _sealed(Metadata(snapshot), signers["snapshot"]))
        write_whole(folder / "timestamp.json", _sealed(Metadata(timestamp), signers["timestamp"]))
        return cls(folder, seeds)

    @property
    def root_sha256(self) -> str:
        """The hash of the newest root.json, as invites name it."""
        return sha256(self.root_bytes).hexdigest()

    @property
    def root_state(self) -> RootState:
        """How the root of trust stands."""
        signed = self._root.signed
        role = signed.roles["root"]
        return RootState(signed.version, signed.expires.timestamp(), role.threshold, len(role.keyids))

    def files(self) -> dict[str, bytes]:
        """Return the current files by name, roots first, as ``/v1/trust/{file}`` serves them."""
        return dict(self._files)

    def refresh(self, now: float) -> bool:
        """Sign again what has less than half its time left; True where anything was.

        The root is not touched: its key is not on this machine in the clear.
        """
        with self._lock:
            targets_due = _due(self._targets, now, TARGETS_DAYS)
            if targets_due:
                self._targets.signed.version += 1
                self._targets.signed.expires = _after(now, TARGETS_DAYS)
            elif not _due(self._snapshot, now, ONLINE_DAYS) and not _due(self._timestamp, now, ONLINE_DAYS):
                return False
            self._publish(now, targets=targets_due)
            return True

    def update_keyring(self, keyring: Keyring, now: float) -> bool:
        """Publish another keyring; False where it is the one already published."""
        with self._lock:
            if keyring == self.keyring:
                return False
            data = encode(keyring)
            write_whole(self._folder / "targets" / f"{sha256(data).hexdigest()}.{KEYRING_TARGET}", data)
            self._targets.signed.targets[KEYRING_TARGET] = TargetFile.from_data(
                KEYRING_TARGET, data, ["sha256"]
            )
            self._targets.signed.version += 1
            self._targets.signed.expires = _after(now, TARGETS_DAYS)
            self._publish(now, targets=True)
            self.keyring = keyring
            return True

    def renew_root(self, seed: bytes, now: float) -> None:
        """Sign the next root version with the root key's ``seed``; everything in it stays.

        Raises:
            LocalError: ``wrong_key`` where the seed is not the root key's.

        """
        signer = _signer(seed)
        if signer.public_key.keyid not in self._root.signed.roles["root"].keyids:
            raise LocalError("this key is no root key of this origin", reason="wrong_key")
        with self._lock:
            self._root.signed.version += 1
            self._root.signed.expires = _after(now, ROOT_DAYS)
            self.root_bytes = _sealed(self._root, signer)
            for name in (f"{self._root.signed.version}.root.json", "root.json"):
                write_whole(self._folder / name, self.root_bytes)
            self._files = self._current()

    @property
    def _target_name(self) -> str:
        digest = self._targets.signed.targets[KEYRING_TARGET].hashes["sha256"]
        return f"{digest}.{KEYRING_TARGET}"

    def _publish(self, now: float, *, targets: bool) -> None:
        """Write targets, snapshot and timestamp in the order in which clients come to need them."""
        if targets:
            data = _sealed(self._targets, self._signers["targets"])
            write_whole(self._folder / f"{self._targets.signed.version}.targets.json", data)
        snapshot = self._snapshot.signed
        snapshot.meta["targets.json"] = MetaFile(version=self._targets.signed.version)
        snapshot.version += 1
        snapshot.expires = _after(now, ONLINE_DAYS)
        data = _sealed(self._snapshot, self._signers["snapshot"])
        write_whole(self._folder / f"{snapshot.version}.snapshot.json", data)
        timestamp = self._timestamp.signed
        timestamp.snapshot_meta = MetaFile(version=snapshot.version)
        timestamp.version += 1
        timestamp.expires = _after(now, ONLINE_DAYS)
        write_whole(self._folder / "timestamp.json", _sealed(self._timestamp, self._signers["timestamp"]))
        self._files = self._current()

    def _current(self) -> dict[str, bytes]:
        """Read the files that belong together now."""
        names = [f"{version}.root.json" for version in range(1, self._root.signed.version + 1)]
        names += ["root.json", "timestamp.json", f"{self._snapshot.signed.version}.snapshot.json"]
        names.append(f"{self._targets.signed.version}.targets.json")
        files = {name: self._read(name) for name in names}
        return {**files, self._target_name: self._read(f"targets/{self._target_name}")}

    def _read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()


def _signer(seed: bytes) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))


def _sealed(metadata: Metadata[Any], signer: CryptoSigner) -> bytes:
    metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))


def _after(now: float, days: int) -> datetime:
    return datetime.fromtimestamp(int(now), UTC) + timedelta(days=days)


def _due(metadata: Metadata[Any], now: float, days: int) -> bool:
    return bool(metadata.signed.expires.timestamp() - now < days * 86_400 * RENEW_AT)
