"""Deny files: what an operator does not serve, in the compact denylist format (IPIP-383, version 1).

Rules name content by multihash or by path, in clear or hashed twice; a rule that begins with ``!``
makes an exception, and the last rule of a file that matches decides. IPNS names are never served
here, so rules about them are read and kept out. Hints are not used.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import unquote

from .cid import IDENTITY, SHA2_256, Cid, read_varint, varint
from .errors import RemoteError

HEADER_LIMIT_CHARS = 1 << 20
LINE_LIMIT_CHARS = 2 << 20
VERSION = 1

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION_LINE = re.compile(r"^version:[ \t]*['\"]?([0-9]+)['\"]?[ \t\r]*(#.*)?$", re.MULTILINE)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class Rule(NamedTuple):
    """One rule about a multihash: the ``path`` below it, or what begins with it; ``at`` is its line."""

    at: int
    allows: bool
    path: str
    is_prefix: bool

    def matches(self, path: str) -> bool:
        """Say whether the rule is about ``path``."""
        return path.startswith(self.path) if self.is_prefix else path == self.path


class _Hashed(NamedTuple):
    at: int
    allows: bool


class Denylist:
    """The rules of one file; ``unknown`` are the numbers of lines that are no rule of this format."""

    def __init__(self, text: str) -> None:
        """Read a file's text.

        Raises:
            RemoteError: ``version`` for a version other than 1.

        """
        self.unknown: list[int] = []
        self.rules = 0
        self._clear: dict[bytes, list[Rule]] = {}
        self._hashed: dict[bytes, _Hashed] = {}
        first, lines = _body(text)
        for number, line in enumerate(lines, first):
            if line and not line.startswith("#") and not self._add(number, line):
                self.unknown.append(number)

    def denies(self, cid: Cid, path: str = "") -> bool:
        """Say whether ``/ipfs/{cid}/{path}`` is refused; ``path`` is decoded, without slashes at its ends."""
        name = _multihash(cid)
        found = [_Hashed(rule.at, rule.allows) for rule in self._clear.get(name, ()) if rule.matches(path)]
        if self._hashed:
            modern = _to_base58(name) + (f"/{path}" if path else "")
            for text in (modern, f"{cid}/{path}"):
                hashed = self._hashed.get(sha256(text.encode()).digest())
                if hashed is not None:
                    found.append(hashed)
        return bool(found) and not max(found).allows

    def _add(self, number: int, line: str) -> bool:
        """Take one line; False where it is no rule."""
        if len(line) > LINE_LIMIT_CHARS:
            return False
        item = line.replace("\t", " ").partition(" ")[0]
        allows = item.startswith("!")
        item = item.removeprefix("!")
        if item.startswith("//"):
            return self._add_hashed(_Hashed(number, allows), item[2:])
        kind, _, rest = item.removeprefix("/").partition("/")
        if not item.startswith("/") or not rest:
            return False
        if kind == "ipns":
            self.rules += 1
            return True
        return kind == "ipfs" and self._add_clear(number, rest, allows=allows)

    def _add_clear(self, number: int, rest: str, *, allows: bool) -> bool:
        name, _, path = rest.partition("/")
        try:
            key = _multihash(Cid.parse(name))
        except RemoteError:
            found = _from_base58(name)  # a bare multihash names a block whatever its codec
            if not _is_multihash(found):
                return False
            key = found
        is_prefix = path.endswith("*")
        path = unquote(path.removesuffix("*")).strip("/")
        self._clear.setdefault(key, []).append(Rule(number, allows, path, is_prefix))
        self.rules += 1
        return True

    def _add_hashed(self, rule: _Hashed, text: str) -> bool:
        if _HEX_DIGEST.fullmatch(text):
            digest = bytes.fromhex(text)
        else:
            found = _from_base58(text)
            if found[:2] != bytes((SHA2_256, 32)) or len(found) != 34:  # noqa: PLR2004 - two bytes and a digest
                return False  # hashed by something else, which no request here is hashed by
            digest = found[2:]
        self._hashed[digest] = rule
        self.rules += 1
        return True


def _body(text: str) -> tuple[int, list[str]]:
    """Return the number of the first line behind the header, and the lines from there on."""
    lines = [line.rstrip("\r").strip(" \t") for line in text.split("\n")]
    read = 0
    for at, line in enumerate(lines):
        if line == "---":
            header = "\n".join(lines[:at])
            version = _VERSION_LINE.search(header)
            if version is not None and int(version[1]) != VERSION:
                raise RemoteError(f"a deny file of version {version[1]}, not {VERSION}", reason="version")
            return at + 2, lines[at + 1 :]
        read += len(line) + 1
        if read > HEADER_LIMIT_CHARS:
            break
    return 1, lines


def _multihash(cid: Cid) -> bytes:
    return varint(cid.hash_code) + varint(len(cid.digest)) + cid.digest


def _is_multihash(data: bytes) -> bool:
    try:
        code, at = read_varint(data, 0)
        size, at = read_varint(data, at)
    except RemoteError:
        return False
    return code != IDENTITY and size == len(data) - at > 0


def _to_base58(data: bytes) -> str:
    number, letters = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        letters = _BASE58[digit] + letters
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + letters


def _from_base58(text: str) -> bytes:
    """Return the bytes of base58 text, none where it is not."""
    if len(text) > 200 or not set(text) <= set(_BASE58):  # noqa: PLR2004 - longer than any multihash
        return b""
    number = 0
    for letter in text:
        number = number * 58 + _BASE58.index(letter)
    return number.to_bytes((number.bit_length() + 7) // 8)
