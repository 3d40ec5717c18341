"""The root file: what a ``root.json`` says by itself, and finding the one an invite names."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import msgspec
from securesystemslib.exceptions import StorageError
from tuf.api._payload import Root  # re-exported, but not for type checkers
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from ...protocol.directory import Endpoint
from ...protocol.errors import RemoteError, UnreachableError
from ...protocol.identity import parse_peer_id, peer_id

FILE_LIMIT_BYTES = 64 << 10
"""No metadata file of an origin comes near this; what arrives unasked may not be larger."""
LABEL_FIELD = "x-farcast"
MAX_ENDPOINTS = 16

Fetch = Callable[[str], bytes | None]
"""Brings one trust file by name from any tier, None where nobody has it; called in a thread."""


class Hint(NamedTuple):
    """Whom a ``root.json`` belongs to: the origin's name, its box key and where it listens.

    ``settlement`` and ``intake`` are the keys that sign reports and acks, so that a report can be
    checked with nothing but a ``root.json``.
    """

    name: str
    box: bytes
    endpoints: list[Endpoint]
    settlement: list[bytes]
    intake: list[bytes]

    @property
    def peer_id(self) -> str:
        """The origin's name among boxes."""
        return peer_id(self.box)


class _Label(msgspec.Struct, frozen=True):
    name: str
    peer_id: str
    endpoints: list[str] = []
    settlement: list[str] = []
    intake: list[str] = []


def read_root(data: bytes, expected_sha256: str | None = None) -> Hint:
    """Check that ``data`` is a root of trust signed by its own keys, and say whose it is.

    Raises:
        RemoteError: ``wrong_root`` where its SHA-256 is not the invite's, ``bad_root`` where it is
            no root.json of an origin.

    """
    if expected_sha256 is not None and not hmac.compare_digest(sha256(data).hexdigest(), expected_sha256):
        message = "this root.json is not the one the invite names; ask the origin for a new invite"
        raise RemoteError(message, reason="wrong_root")
    _check_root(data)
    fields = Metadata[Root].from_bytes(data).signed.unrecognized_fields.get(LABEL_FIELD)
    try:
        label = msgspec.convert(fields, _Label)
        endpoints = [_endpoint(text) for text in label.endpoints[:MAX_ENDPOINTS]]
        settlement, intake = (
            [parse_peer_id(name) for name in names] for names in (label.settlement, label.intake)
        )
        return Hint(label.name[:400], parse_peer_id(label.peer_id), endpoints, settlement, intake)
    except (msgspec.ValidationError, ValueError) as error:
        message = f"this root.json names no Farcast origin: its {LABEL_FIELD} part is wrong"
        raise RemoteError(message, reason="bad_root") from error


def find_root(fetch: Fetch, expected_sha256: str) -> bytes:
    """Fetch the root an invite names: the newest, or the older version it was made with.

    Raises:
        UnreachableError: where nobody answers.
        RemoteError: ``wrong_root`` where no version offered has that hash.

    """
    newest = fetch("root.json")
    if newest is None:
        raise UnreachableError("the origin did not hand out its root.json; check the address in the invite")
    data: bytes | None = newest
    version = _check_root(newest)
    while data is not None and sha256(data).hexdigest() != expected_sha256 and version > 1:
        version -= 1
        data = fetch(f"{version}.root.json")
    read_root(data or newest, expected_sha256)
    return data or newest


def _check_root(data: bytes) -> int:
    """Check that ``data`` is a root.json signed by its own keys; returns its version."""
    if len(data) > FILE_LIMIT_BYTES:
        raise RemoteError(f"a root.json of {len(data)} bytes is too large", reason="bad_root")
    try:
        root = Metadata[Root].from_bytes(data)
        if root.signed.type != "root":
            raise RemoteError("this file is TUF metadata, but no root.json", reason="bad_root")
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except (RepositoryError, StorageError, ValueError) as error:
        message = "this is no root.json signed by its own keys; ask the origin for it again"
        raise RemoteError(message, reason="bad_root") from error
    return root.signed.version


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return msgspec.convert([host.strip("[]"), int(port), False], Endpoint)
