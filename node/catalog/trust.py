"""Trust: which keys an origin uses now, by TUF, over any way that brings its small files.

Born from a ``root.json``; refreshed by ``tuf.ngclient`` (the client workflow of the TUF
specification, section 5) behind a fetcher of ours. A refresh that fails warns and is counted; what
was accepted last stays in force, and nothing older is ever accepted.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter
from securesystemslib.exceptions import StorageError
from tuf.api._payload import Root, Snapshot, Targets, Timestamp  # re-exported, but not for type checkers
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata

from ...protocol.codec import decode, encode
from ...protocol.errors import LocalError, RemoteError, UnreachableError, UsageError
from ...protocol.keyring import KEYRING_LIMIT_BYTES, KEYRING_TARGET, Keyring, open_keyring
from ..home import write_whole
from .rootfile import FILE_LIMIT_BYTES, Fetch, Hint, read_root
from .updater import FetcherInterface, Updater, UpdaterConfig

TARGETS_OFFERED = 16
ACCEPTED_LIMIT_BYTES = 64 << 20

_NAME = re.compile(
    r"(?:(?P<version>[1-9][0-9]{0,8})\.)?(?P<role>root|timestamp|snapshot|targets)\.json", re.ASCII
)
_TARGET = re.compile(rf"(?P<hash>[0-9a-f]{{64}})\.{re.escape(KEYRING_TARGET)}", re.ASCII)


class Trust:
    """One origin's keys as this box accepted them last; ``folder`` holds them across restarts."""

    def __init__(self, folder: Path, fetch: Fetch, registry: CollectorRegistry | None = None) -> None:
        self._folder = folder
        self._fetch = fetch
        self._lock = threading.Lock()
        self._offers: dict[str, bytes] = {}
        self._targets_offered: OrderedDict[str, bytes] = OrderedDict()
        self._files: dict[str, bytes] = {}
        self._root: Root | None = None
        self._timestamp_version = 0
        self.keyring: Keyring | None = None
        self.hint: Hint | None = None
        self._refreshes = Counter(
            "farcast_node_trust_refreshes",
            "Refreshes of the origin's keys by result.",
            ["result"],
            registry=registry,
        )
        self._load()

    @classmethod
    def create(cls, folder: Path, root: bytes, fetch: Fetch, expected_sha256: str | None = None) -> Trust:
        """Open the trust in ``folder`` and let it be born from ``root``; raises as ``adopt``."""
        trust = cls(folder, fetch)
        trust.adopt(root, expected_sha256)
        return trust

    @property
    def origin_id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the origin's box key; raises ``UsageError`` before birth."""
        if self.hint is None:
            raise UsageError("this box trusts no origin yet; `farcast join LINK` makes it")
        return sha256(self.hint.box).digest()[:8]

    def adopt(self, root: bytes, expected_sha256: str | None = None) -> Hint:
        """Be born from a ``root.json``; doing it again with the same origin's changes nothing.

        Raises:
            RemoteError: as ``read_root``.
            UsageError: where this box already trusts another origin.

        """
        hint = read_root(root, expected_sha256)
        if self.hint is not None:
            if self.hint.box != hint.box:
                message = f"this box already trusts {self.hint.name}; use another --home for {hint.name}"
                raise UsageError(message, reason="other_origin")
            return self.hint
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._folder / "birth.json", root)
        self._load()
        return hint

    def files(self) -> dict[str, bytes]:
        """Return the files accepted last by name, roots first, as any box may serve them."""
        return dict(self._files)

    def offer(self, name: str, data: bytes) -> bool:
        """Keep a file that arrived unasked, where it is signed by the keys this box trusts.

        Bounded: one candidate for each name (the newer one wins) and the last few targets. Returns
        whether it was kept; nothing is accepted before ``refresh``.
        """
        if len(data) > FILE_LIMIT_BYTES or self._root is None:
            return False
        target = _TARGET.fullmatch(name)
        if target:
            if sha256(data).hexdigest() != target["hash"]:
                return False
            self._targets_offered[name] = data
            if len(self._targets_offered) > TARGETS_OFFERED:
                self._targets_offered.popitem(last=False)
            return True
        found = _NAME.fullmatch(name)
        if not found:
            return False
        role, version = found["role"], int(found["version"] or 0)
        if (role == "timestamp") == bool(version):
            return False  # only the timestamp goes without a version
        return self._offer_signed(name, role, version, data)

    def wants(self, offered: Mapping[str, bytes]) -> bool:
        """Say whether a refresh would find something new in what was ``offered``."""
        return any(name in offered for name in self._offers) and self._offers_are_newer()

    async def refresh(self) -> None:
        """Run TUF's client workflow in a thread; see ``refresh_now``."""
        await asyncio.to_thread(self.refresh_now)

    def refresh_now(self) -> None:
        """Run TUF's client workflow, first over what was offered if that is newer. Blocking.

        Raises:
            UnreachableError: where a file could not be had.
            RemoteError: ``expired``, ``rollback`` or ``bad_metadata``; what was accepted stays.
            LocalError: where this box's disk refuses.

        """
        with self._lock:
            if self.hint is None:
                raise UsageError("this box trusts no origin yet; `farcast join LINK` makes it")
            try:
                if not (self._offers_are_newer() and self._offers_suffice()):
                    self._update(self._from_anywhere)
            except RemoteError as error:
                self._refreshes.labels(error.reason).inc()
                raise
            finally:
                self._root = self._newest_root() or self._root
            self._refreshes.labels("ok").inc()

    def _offers_suffice(self) -> bool:
        try:
            self._update(self._from_offers)
        except RemoteError:
            return False
        return True

    def _update(self, fetch: Fetch) -> None:
        """Run one ``Updater`` from birth root to target, and accept what it verified."""
        cache = self._folder / "metadata"
        try:
            cache.mkdir(mode=0o700, exist_ok=True)
            config = UpdaterConfig(
                root_max_length=FILE_LIMIT_BYTES,
                timestamp_max_length=FILE_LIMIT_BYTES,
                snapshot_max_length=FILE_LIMIT_BYTES,
                targets_max_length=FILE_LIMIT_BYTES,
            )
            birth = (self._folder / "birth.json").read_bytes()
            updater = Updater(
                str(cache),
                "trust:",
                target_base_url="trust:",
                fetcher=_Fetcher(fetch),
                config=config,
                bootstrap=birth,
            )
            updater.refresh()
            info = updater.get_targetinfo(KEYRING_TARGET)
            if info is None or info.length > KEYRING_LIMIT_BYTES:
                raise RemoteError("the origin's targets name no keyring", reason="bad_metadata")
            with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
                path = updater.download_target(info, str(Path(scratch) / "target"))
                self._accept(cache, info.hashes["sha256"], Path(path).read_bytes())
        except ExpiredMetadataError as error:
            message = f"the origin's trust files have expired ({error}); the keys accepted last stay in force"
            raise RemoteError(message, reason="expired") from error
        except BadVersionNumberError as error:
            raise RemoteError(
                f"older trust files than those accepted before: {error}", reason="rollback"
            ) from error
        except DownloadError as error:
            raise UnreachableError(f"a trust file could not be had: {error}") from error
        except (RepositoryError, StorageError, KeyError, ValueError) as error:
            raise RemoteError(f"trust files that do not verify: {error}", reason="bad_metadata") from error
        except OSError as error:
            raise LocalError(f"cannot keep trust files in {self._folder}: {error}", reason="disk") from error

    def _accept(self, cache: Path, target_hash: str, target: bytes) -> None:
        """Make the verified set the accepted one, on disk in one piece before it counts."""
        keyring = open_keyring(target)
        files: dict[str, bytes] = {}
        history = sorted(
            (cache / "root_history").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0])
        )
        for path in history:
            files[path.name] = files["root.json"] = path.read_bytes()
        files["timestamp.json"] = (cache / "timestamp.json").read_bytes()
        snapshot, targets = (cache / "snapshot.json").read_bytes(), (cache / "targets.json").read_bytes()
        files[f"{Metadata[Snapshot].from_bytes(snapshot).signed.version}.snapshot.json"] = snapshot
        files[f"{Metadata[Targets].from_bytes(targets).signed.version}.targets.json"] = targets
        files[f"{target_hash}.{KEYRING_TARGET}"] = target
        if files != self._files:
            write_whole(self._folder / "accepted", encode(files))
        self._take(files, keyring)

    def _take(self, files: dict[str, bytes], keyring: Keyring) -> None:
        self._files, self.keyring = files, keyring
        self._timestamp_version = Metadata[Timestamp].from_bytes(files["timestamp.json"]).signed.version
        for name in [name for name, data in self._offers.items() if files.get(name) == data]:
            self._offers.pop(name, None)

    def _load(self) -> None:
        birth = self._folder / "birth.json"
        if not birth.is_file():
            return
        root = birth.read_bytes()
        self.hint = read_root(root)
        self._root = Metadata[Root].from_bytes(root).signed
        self._files = {f"{self._root.version}.root.json": root, "root.json": root}
        accepted = self._folder / "accepted"
        if accepted.is_file():
            try:
                files = decode(dict[str, bytes], accepted.read_bytes(), limit_bytes=ACCEPTED_LIMIT_BYTES)
                target = next(data for name, data in files.items() if _TARGET.fullmatch(name))
                self._take(files, open_keyring(target))
            except (RemoteError, RepositoryError, StopIteration, KeyError) as error:
                message = f"{accepted} is damaged; remove it and this box fetches the origin's keys anew"
                raise LocalError(message, reason="damaged") from error
        self._root = self._newest_root() or self._root

    def _newest_root(self) -> Root | None:
        path = self._folder / "metadata" / "root.json"
        return Metadata[Root].from_bytes(path.read_bytes()).signed if path.is_file() else None

    def _offer_signed(self, name: str, role: str, version: int, data: bytes) -> bool:
        root = self._root
        assert root is not None
        try:
            offered = Metadata[Root].from_bytes(data)  # of any role: told apart by its type field
            if offered.signed.type != role or version not in (0, offered.signed.version):
                return False
            root.verify_delegate(role, offered.signed_bytes, offered.signatures)
            if role == "root":
                if offered.signed.version != root.version + 1:
                    return False
                offered.signed.verify_delegate(role, offered.signed_bytes, offered.signatures)
                self._root = offered.signed  # the files it vouches for may follow at once
            elif name == "timestamp.json" and name in self._offers:
                held = Metadata[Timestamp].from_bytes(self._offers[name]).signed
                if held.version > offered.signed.version:
                    return False
        except (RepositoryError, StorageError, ValueError):
            return False
        for other in [other for other in self._offers if role != "root" and other.endswith(f".{role}.json")]:
            if int(other.split(".")[0]) > version:
                return False
            self._offers.pop(other)  # one candidate for each role is enough, and bounds what is kept
        self._offers[name] = data
        return True

    def _offers_are_newer(self) -> bool:
        data = self._offers.get("timestamp.json")
        if data is None:
            return any(name.endswith(".root.json") for name in self._offers)
        return Metadata[Timestamp].from_bytes(data).signed.version > self._timestamp_version

    def _from_offers(self, name: str) -> bytes | None:
        return self._offers.get(name) or self._targets_offered.get(name) or self._files.get(name)

    def _from_anywhere(self, name: str) -> bytes | None:
        if _TARGET.fullmatch(name) and name in self._files:
            return self._files[name]  # content-addressed: what was accepted cannot have changed
        return self._fetch(name) or self._offers.get(name) or self._targets_offered.get(name)


class _Fetcher(FetcherInterface):
    """Lets the updater read through a function of names; a missing file is TUF's 404."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch_name = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        data = self._fetch_name(name)
        if data is None:
            raise DownloadHTTPError(f"nobody here has {name}", 404)
        return iter((data,))
