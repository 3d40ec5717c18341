"""Checkpoints: signed tree heads as C2SP ``tlog-checkpoint`` notes, and their form for radio.

The note text is four lines: origin, tree size, root in base64, and ``time <ms>``. The signature is
the note's Ed25519 type 0x01 (C2SP ``signed-note``). The log's name is both origin and key name, so
117 bytes rebuild the note for whoever knows the name.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import NamedTuple

from .errors import LocalError, RemoteError
from .identity import SIGNATURE_BYTES, Identity, verify_raw

NOTE_LIMIT_BYTES = 96 << 10
SIGNATURE_LIMIT = 16
"""Signed-note asks a reader to accept 16 signatures, of up to 5 kB each."""
NAME_LIMIT_CHARS = 200
COMPACT_BYTES = 117

_ED25519 = b"\x01"
_COMPACT = struct.Struct(">B Q 32s Q 4s 64s")
_COMPACT_VERSION = 1
_NUMBER_LIMIT = 2**63
_NUMBER = "(0|[1-9][0-9]{0,18})"
_TEXT = re.compile(f"([^\n]+)\n{_NUMBER}\n([A-Za-z0-9+/]{{43}}=)\ntime {_NUMBER}\n")
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_NAME = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")


class Checkpoint(NamedTuple):
    """A tree head: whose log, how many leaves, the root over them, and when it was signed."""

    origin: str
    size: int
    root: bytes
    time_ms: int


def key_id(name: str, key: bytes) -> bytes:
    """Return the 4-byte id of an Ed25519 note key (signed-note, "Ed25519 signatures")."""
    return sha256(name.encode() + b"\n" + _ED25519 + key).digest()[:4]


def seal(checkpoint: Checkpoint, name: str, identity: Identity) -> bytes:
    """Return the signed note of ``checkpoint``; ``name`` is its origin.

    Raises:
        LocalError: ``bad_name`` for a name no note can carry or that is not the origin.

    """
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT_CHARS or name != checkpoint.origin:
        msg = f"the log name {name!r} must be the origin, without spaces or plus signs"
        raise LocalError(msg, reason="bad_name")
    text = _text(checkpoint)
    return _note(text, name, key_id(name, identity.key), identity.sign_raw(text))


def open_note(data: bytes, name: str, key: bytes) -> Checkpoint:
    """Verify ``key``'s signature as ``name`` and read the checkpoint; other signatures are ignored.

    Raises:
        RemoteError: ``malformed``, ``bad_signature``, or ``wrong_origin`` where the note speaks of
            another log.

    """
    return _open(data, name, key)[0]


def compact(data: bytes, name: str, key: bytes) -> bytes:
    """Verify a note and return its 117-byte form; raises as ``open_note``."""
    checkpoint, sig = _open(data, name, key)
    return _COMPACT.pack(
        _COMPACT_VERSION, checkpoint.size, checkpoint.root, checkpoint.time_ms, key_id(name, key), sig
    )


def expand(data: bytes, name: str) -> bytes:
    """Rebuild the note from its compact form, unverified: ``open_note`` must follow.

    Raises:
        RemoteError: ``malformed``.

    """
    if len(data) != COMPACT_BYTES or data[0] != _COMPACT_VERSION:
        raise RemoteError("bytes that are no compact checkpoint", reason="malformed")
    _, size, root, time_ms, signer, sig = _COMPACT.unpack(data)
    if size >= _NUMBER_LIMIT or time_ms >= _NUMBER_LIMIT:
        raise RemoteError("a compact checkpoint with a number beyond 2^63", reason="malformed")
    return _note(_text(Checkpoint(name, size, root, time_ms)), name, signer, sig)


def _text(checkpoint: Checkpoint) -> bytes:
    root = b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\ntime {checkpoint.time_ms}\n".encode()


def _note(text: bytes, name: str, signer: bytes, sig: bytes) -> bytes:
    return text + f"\n— {name} {b64encode(signer + sig).decode()}\n".encode()


def _open(data: bytes, name: str, key: bytes) -> tuple[Checkpoint, bytes]:
    text, signatures = _split(data)
    found = [sig for who, sig in signatures if who == name and sig[:4] == key_id(name, key)]
    raw = text.encode()
    if not found or not all(verify_raw(key, raw, sig[4:]) for sig in found):
        raise RemoteError(f"a checkpoint without a valid signature of {name}", reason="bad_signature")
    fields = _TEXT.fullmatch(text)
    if fields is None:
        raise RemoteError("a note that is no checkpoint with a time line", reason="malformed")
    origin, size, root, time_ms = fields.groups()
    checkpoint = Checkpoint(origin, int(size), b64decode(root), int(time_ms))
    if max(checkpoint.size, checkpoint.time_ms) >= _NUMBER_LIMIT or _text(checkpoint) != raw:
        raise RemoteError("a checkpoint whose numbers or root are not canonical", reason="malformed")
    if origin != name:
        raise RemoteError(f"a checkpoint of {origin!r} instead of {name!r}", reason="wrong_origin")
    return checkpoint, found[0][4 : 4 + SIGNATURE_BYTES]


def _split(data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Part a note into its text and its (key name, key id + signature) pairs."""
    if len(data) > NOTE_LIMIT_BYTES:
        raise RemoteError(f"a note of {len(data)} bytes is too large", reason="malformed")
    try:
        note = data.decode()
    except UnicodeDecodeError as error:
        raise RemoteError("a note that is not UTF-8", reason="malformed") from error
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or _CONTROL.search(note):
        raise RemoteError("bytes that are no signed note", reason="malformed")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURE_LIMIT:
        raise RemoteError(f"a note with {len(lines)} signatures", reason="malformed")
    signatures: list[tuple[str, bytes]] = []
    for line in lines:
        fields = _LINE.fullmatch(line)
        try:
            sig = b64decode(fields[2], validate=True) if fields else b""
        except ValueError as error:  # binascii.Error is one, and so is text that is not ASCII
            raise RemoteError("a note with a signature that is not base64", reason="malformed") from error
        if fields is None or len(sig) <= 4:  # noqa: PLR2004 - the key id alone
            raise RemoteError("a note with a line that is no signature", reason="malformed")
        signatures.append((fields[1], sig))
    return text + "\n", signatures
