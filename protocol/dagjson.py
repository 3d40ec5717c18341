"""The dag-json codec, as far as links need it (IPLD DAG-JSON specification): read, never written."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any, NoReturn

from .cid import Cid
from .dagcbor import Document
from .errors import RemoteError

_RESERVED = "/"


def decode(data: bytes) -> Document:
    """Read the one document that fills ``data``: ``{"/": "bafy..."}`` becomes a ``Cid``.

    Raises:
        RemoteError: ``malformed``.

    """
    try:
        document: Document = json.loads(data.decode(), object_pairs_hook=_map, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RemoteError("a dag-json block that is no JSON, or too deep", reason="malformed") from error
    return document


def _map(pairs: list[tuple[str, Any]]) -> Document:
    found: dict[str, Document] = dict(pairs)
    if len(found) != len(pairs):
        raise RemoteError("a dag-json block with a key twice", reason="malformed")
    if _RESERVED not in found:
        return found
    value = found[_RESERVED]
    if len(found) == 1 and isinstance(value, str):
        return Cid.parse(value)
    text = value.get("bytes") if isinstance(value, dict) and len(value) == 1 else None
    if len(found) == 1 and isinstance(text, str):
        try:
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError as error:  # binascii.Error is one, and so is text that is not ASCII
            raise RemoteError("a dag-json block with bytes that are none", reason="malformed") from error
    raise RemoteError("a dag-json block with a map of the reserved key /", reason="malformed")


def _refuse(name: str) -> NoReturn:
    raise RemoteError(f"a dag-json block with the number {name}", reason="malformed")
