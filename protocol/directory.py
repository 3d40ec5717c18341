"""The relay directory: which relays an origin vouches for, and where they are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message
from .errors import RemoteError
from .identity import Identity, open_unverified, peer_id, unseal, verify
from .manifest import Count, Key

DIRECTORY_LIMIT_BYTES = 4 << 20
PAYEE_PATTERN = r"^([a-z0-9][a-z0-9._-]{0,62})?\Z"
"""Empty: nobody is paid."""


class Endpoint(Message, frozen=True):
    """Where a box listens: the same port for TCP and UDP; ``web`` with a public certificate."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    web: bool


class RelayRecord(Message, frozen=True):
    """What a relay says of itself, signed by its key (kind ``record``)."""

    v: Literal[1]
    relay: Key
    endpoints: Annotated[list[Endpoint], Meta(min_length=1, max_length=8)]
    payee: Annotated[str, Meta(pattern=PAYEE_PATTERN)]
    created_ms: Count
    expires_ms: Count


class Directory(Message, frozen=True):
    """The origin's signed list of relay records (kind ``directory``, catalog key)."""

    v: Literal[1]
    issued_ms: Count
    expires_ms: Count
    records: Annotated[list[bytes], Meta(max_length=10_000)]


def open_record(data: bytes) -> RelayRecord:
    """Decode a relay's record and verify that the relay it names signed it.

    Raises:
        RemoteError: ``bad_signature`` or a codec reason.

    """
    record, signed = open_unverified(RelayRecord, data)
    if not verify("record", record.relay, signed.body, signed.sig):
        raise RemoteError(f"a relay record not signed by {peer_id(record.relay)}", reason="bad_signature")
    return record


def seal_directory(directory: Directory, catalog: Identity) -> bytes:
    """Sign the directory with the catalog key."""
    return catalog.seal("directory", directory)


def open_directory(data: bytes, catalog_key: bytes) -> tuple[Directory, list[RelayRecord]]:
    """Verify a directory and return it with its valid records; a bad record spoils only itself.

    Raises:
        RemoteError: ``bad_signature`` or a codec reason for the directory itself.

    """
    directory = unseal("directory", Directory, data, catalog_key, limit_bytes=DIRECTORY_LIMIT_BYTES)
    records: list[RelayRecord] = []
    for item in directory.records:
        try:
            records.append(open_record(item))
        except RemoteError:
            continue
    return directory, records
