"""The dag-cbor codec: documents with links in them (IPLD DAG-CBOR specification).

Written in the one canonical form. Read: whatever an IPLD writer of any age makes, that is also maps
in another order and numbers in more bytes than they need, but no other tag than that of a link, no
lengths left open and no key twice.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from .cid import Cid
from .errors import RemoteError

DEPTH_LIMIT = 64
ITEM_LIMIT = 1 << 18
"""Most values in one block, so that no block takes more than a few times its size in memory."""

Document: TypeAlias = "bool | int | float | str | bytes | Cid | list[Document] | dict[str, Document] | None"

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_CONSTANTS: dict[int, bool | None] = {20: False, 21: True, 22: None}
_CID_TAG = 42
_NUMBER_LIMIT = 1 << 64


def decode(data: bytes) -> Document:
    """Read the one document that fills ``data``; a link becomes a ``Cid``.

    Raises:
        RemoteError: ``malformed``.

    """
    reader = _Reader(data)
    document = reader.value(0)
    if reader.at != len(data):
        raise _malformed("bytes behind the document")
    return document


def encode(document: Document) -> bytes:  # noqa: PLR0911 - one for each kind of value
    """Return the canonical form: map keys by length, then by bytes; numbers in as few bytes as may be."""
    if document is None or isinstance(document, bool):
        code = next(code for code, value in _CONSTANTS.items() if value is document)
        return bytes((_SIMPLE << 5 | code,))
    if isinstance(document, int):
        return _head(_NEGATIVE, -1 - document) if document < 0 else _head(_UINT, document)
    if isinstance(document, float):
        return struct.pack(">Bd", _SIMPLE << 5 | 27, document)
    if isinstance(document, bytes):
        return _head(_BYTES, len(document)) + document
    if isinstance(document, str):
        text = document.encode()
        return _head(_TEXT, len(text)) + text
    if isinstance(document, Cid):
        return _head(_TAG, _CID_TAG) + encode(b"\0" + document.encode_as_read())
    if isinstance(document, list):
        return _head(_ARRAY, len(document)) + b"".join(encode(item) for item in document)
    keys = sorted(document, key=lambda key: (len(key.encode()), key.encode()))
    parts = (encode(key) + encode(document[key]) for key in keys)
    return _head(_MAP, len(document)) + b"".join(parts)


class _Reader:
    """Reads values one after the other; ``at`` is where the next one begins."""

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data
        self._items = 0

    def value(self, depth: int) -> Document:  # noqa: PLR0911 - one for each kind of value
        self._items += 1
        if depth > DEPTH_LIMIT or self._items > ITEM_LIMIT:
            raise _malformed(f"more than {DEPTH_LIMIT} levels or {ITEM_LIMIT} values")
        major, code, number = self._head()
        if major == _UINT:
            return number
        if major == _NEGATIVE:
            return -1 - number
        if major == _BYTES:
            return self._take(number)
        if major == _TEXT:
            return self._text(number)
        if major == _ARRAY:
            return [self.value(depth + 1) for _ in range(self._count(number))]
        if major == _MAP:
            return self._map(number, depth)
        if major == _TAG:
            return self._link(number)
        return self._simple(code)

    def _simple(self, code: int) -> Document:
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code not in _FLOATS:
            raise _malformed(f"a simple value {code}")
        (real,) = struct.unpack(_FLOATS[code], self._data[self.at - _WIDTHS[code] : self.at])
        return float(real)

    def _head(self) -> tuple[int, int, int]:
        """Read a head (RFC 8949 section 3): major type, what the first byte says, and the number."""
        first = self._take(1)[0]
        major, code = first >> 5, first & 0x1F
        if code < 24:  # noqa: PLR2004 - RFC 8949: numbers below 24 stand in the head
            return major, code, code
        if code not in _WIDTHS:
            raise _malformed("a length left open")
        return major, code, int.from_bytes(self._take(_WIDTHS[code]), "big")

    def _map(self, count: int, depth: int) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for _ in range(self._count(count)):
            major, _, size = self._head()
            if major != _TEXT:
                raise _malformed("a key that is no text")
            key = self._text(size)
            if key in found:
                raise _malformed("a key twice")
            found[key] = self.value(depth + 1)
        return found

    def _link(self, tag: int) -> Cid:
        if tag != _CID_TAG:
            raise _malformed(f"tag {tag}")
        major, _, size = self._head()
        data = self._take(size) if major == _BYTES else b""
        if data[:1] != b"\0":
            raise _malformed("a link that is no CID")
        cid, end = Cid.read(data, 1)
        if end != len(data):
            raise _malformed("a link with bytes behind its CID")
        return cid

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError as error:
            raise _malformed("text that is not UTF-8") from error

    def _count(self, number: int) -> int:
        if number > len(self._data) - self.at:  # every value takes a byte at least
            raise _malformed("less than it says")
        return number

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise _malformed("less than it says")
        part = self._data[self.at : end]
        self.at = end
        return part


def _head(major: int, number: int) -> bytes:
    if number < 24:  # noqa: PLR2004 - as above
        return bytes((major << 5 | number,))
    if number >= _NUMBER_LIMIT:
        raise OverflowError(number)
    width, code = next((width, code) for code, width in _WIDTHS.items() if number < 1 << 8 * width)
    return bytes((major << 5 | code,)) + number.to_bytes(width, "big")


def _malformed(what: str) -> RemoteError:
    return RemoteError(f"a dag-cbor block with {what}", reason="malformed")
