"""Decode every Farcast message with nothing but Python's standard library.

Written from ``docs/protocol.md`` and the standards it names, and from nothing else: it shares no line with
the package, so that what both read alike is what the document says.  One file on purpose, and so over 400
lines: an implementer reads it from top to bottom beside the document.

``decode(kind, data, given)`` returns a message's fields by their names in the document or raises
:class:`RefusedError`.  ``given`` holds what the bytes do not: ``key`` (the signer's), ``secret``,
``ticket_key``, ``name``, ``cid``, ``spki``, ...
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import ipaddress
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, TypeAlias, cast
from urllib.parse import parse_qsl

Value: TypeAlias = "int | str | bytes | bool | list[Value] | None"
Field: TypeAlias = "int | str | bytes | bool | list[Field] | dict[str, Field] | None"
Fields: TypeAlias = dict[str, Field]
Given: TypeAlias = Mapping[str, "bytes | str | int | list[bytes]"]
Check: TypeAlias = Callable[[Value], Field]
Point: TypeAlias = tuple[int, int, int, int]

MIB = 1 << 20
MAX_MESSAGE = 4 * MIB
MAX_BLOCK = 2 * MIB
MAX_BUNDLE = 20_000_000
MAX_ITEMS = 4_096
MAX_ENROL = 16_384
MAX_SEQ = 2_000


class RefusedError(Exception):
    """The bytes are not what the document allows."""


def refuse(why: str) -> NoReturn:
    """Refuse the bytes at hand.

    Raises:
        RefusedError: Always.
    """
    raise RefusedError(why)


def sha256(*parts: bytes) -> bytes:
    """Hash the concatenation of ``parts`` (FIPS 180-4)."""
    return hashlib.sha256(b"".join(parts)).digest()


# --- Ed25519: RFC 8032 section 5.1, with libsodium's refusals -------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
NEUTRAL: Point = (0, 1, 1, 0)


def _add(a: Point, b: Point) -> Point:
    m = (a[1] - a[0]) * (b[1] - b[0]) % P
    n = (a[1] + a[0]) * (b[1] + b[0]) % P
    t = 2 * a[3] * b[3] * D % P
    z = 2 * a[2] * b[2] % P
    e, f, g, h = n - m, z - t, z + t, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar: int, point: Point) -> Point:
    total = NEUTRAL
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _is_neutral(point: Point) -> bool:
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


def _negative(point: Point) -> Point:
    return (P - point[0], point[1], point[2], P - point[3])


def _point(encoded: bytes) -> Point | None:
    """Decompress a point (RFC 8032 section 5.1.3); None where there is none or it is not canonical."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * ROOT_OF_MINUS_ONE % P
    if (v * x * x - u) % P != 0 or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _compress(point: Point) -> bytes:
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = cast("Point", _point((4 * pow(5, -1, P) % P).to_bytes(32, "little")))


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Verify an Ed25519 signature; small-order points and S of the order or more never pass."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r, s = _point(key), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER or _is_neutral(_times(8, a)) or _is_neutral(_times(8, r)):
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    return _compress(_add(_times(s, BASE), _times(h, _negative(a)))) == signature[:32]


# --- HKDF (RFC 5869) and ChaCha20-Poly1305 (RFC 8439) ---------------------------------------------------


def hkdf(secret: bytes, info: bytes) -> bytes:
    """Derive 32 bytes with HKDF-SHA256, no salt: extract, then one round of expand."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        mixed = s[z] ^ s[x]
        s[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def _chacha20(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = [*_words(b"expand 32-byte k"), *_words(key), counter, *_words(nonce)]
    state = list(start)
    for _ in range(10):
        for i in range(4):
            _quarter(state, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            _quarter(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    mixed = ((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True))
    return b"".join(word.to_bytes(4, "little") for word in mixed)


def _poly1305(key: bytes, data: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i : i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) & (2**128 - 1)).to_bytes(16, "little")


def unbox(key: bytes, nonce: bytes, box: bytes, associated: bytes) -> bytes:
    """Open a ChaCha20-Poly1305 box (RFC 8439 section 2.8).

    Raises:
        RefusedError: The box was not made with this key, nonce and associated data.
    """
    text, tag = box[:-16], box[-16:]
    lengths = len(associated).to_bytes(8, "little") + len(text).to_bytes(8, "little")
    padded = associated + bytes(-len(associated) % 16) + text + bytes(-len(text) % 16) + lengths
    if len(box) < 16 or not hmac.compare_digest(_poly1305(_chacha20(key, 0, nonce)[:32], padded), tag):
        refuse("the box does not open")
    stream = b"".join(_chacha20(key, 1 + i, nonce) for i in range((len(text) + 63) // 64))
    return bytes(a ^ b for a, b in zip(text, stream, strict=False))


# --- AES-128 in CBC mode (FIPS 197, NIST SP 800-38A), backwards only -------------------------------------


def _double(value: int) -> int:
    return (value << 1 ^ (0x11B if value & 0x80 else 0)) & 0xFF


def _product(a: int, b: int) -> int:
    total = 0
    while b:
        total, a, b = total ^ (a if b & 1 else 0), _double(a), b >> 1
    return total


def _substitute(value: int) -> int:
    inverse = next((other for other in range(256) if _product(value, other) == 1), 0)
    out = 0x63
    for turn in range(5):
        out ^= inverse << turn | inverse >> (8 - turn)
    return out & 0xFF


@functools.cache
def _boxes() -> tuple[list[int], list[int], list[list[int]]]:
    """Return the S-box, its inverse, and products with 14, 11, 13 and 9."""
    box = [_substitute(value) for value in range(256)]
    back = [box.index(value) for value in range(256)]
    return box, back, [[_product(value, factor) for value in range(256)] for factor in (14, 11, 13, 9)]


@functools.cache
def _round_keys(key: bytes) -> list[bytes]:
    words, round_, box = [key[i : i + 4] for i in range(0, 16, 4)], 1, _boxes()[0]
    for i in range(4, 44):
        last = words[-1]
        if i % 4 == 0:
            last = bytes(box[last[(place + 1) % 4]] ^ (round_ if place == 0 else 0) for place in range(4))
            round_ = _double(round_)
        words.append(bytes(a ^ b for a, b in zip(words[-4], last, strict=True)))
    return [b"".join(words[i : i + 4]) for i in range(0, 44, 4)]


def _aes_backwards(key: bytes, block: bytes) -> bytes:
    keys, (_, back, (by14, by11, by13, by9)) = _round_keys(key), _boxes()
    state = [a ^ b for a, b in zip(block, keys[10], strict=True)]
    for round_ in range(9, -1, -1):
        state = [back[state[(place - 4 * (place % 4)) % 16]] for place in range(16)]  # rows turn right
        state = [a ^ b for a, b in zip(state, keys[round_], strict=True)]
        if round_:
            mixed = list[int]()
            for at in range(0, 16, 4):
                a, b, c, d = state[at : at + 4]
                for w, x, y, z in ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):
                    mixed.append(by14[w] ^ by11[x] ^ by13[y] ^ by9[z])
            state = mixed
    return bytes(state)


def open_cbc(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Decrypt whole blocks and take the PKCS #7 padding away (RFC 5652 section 6.3)."""
    if not data or len(data) % 16:
        refuse("not whole blocks")
    out, before = bytearray(), iv
    for at in range(0, len(data), 16):
        block = data[at : at + 16]
        out += bytes(a ^ b for a, b in zip(_aes_backwards(key, block), before, strict=True))
        before = block
    if not 1 <= out[-1] <= 16 or len(set(out[-out[-1] :])) != 1:
        refuse("wrong padding")
    return bytes(out[: -out[-1]])


# --- section 1: msgpack, canonical ----------------------------------------------------------------------

# first byte: (sort, bytes of the length or number, the smallest that needs so many)
WIDE = {
    0xC4: ("bin", 1, 0),
    0xC5: ("bin", 2, 1 << 8),
    0xC6: ("bin", 4, 1 << 16),
    0xCC: ("int", 1, 1 << 7),
    0xCD: ("int", 2, 1 << 8),
    0xCE: ("int", 4, 1 << 16),
    0xCF: ("int", 8, 1 << 32),
    0xD9: ("str", 1, 1 << 5),
    0xDA: ("str", 2, 1 << 8),
    0xDB: ("str", 4, 1 << 16),
    0xDC: ("array", 2, 1 << 4),
    0xDD: ("array", 4, 1 << 16),
}


class _Bytes:
    """A cursor over bytes that refuses to pass their end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        if size > len(self.data) - self.at:
            refuse("cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def end(self) -> None:
        """Refuse bytes after the end."""
        if self.at != len(self.data):
            refuse("bytes after the end")

    def varint(self) -> int:
        """Return an unsigned varint in its shortest form, below 2^63 (multiformats)."""
        number = 0
        for i in range(9):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if byte == 0 and i:
                    refuse("varint not in its shortest form")
                return number
        refuse("varint too long")

    def cid(self) -> tuple[int, int, bytes]:
        """Return the next CID of version 1: codec, hash function, digest."""
        if self.varint() != 1:
            refuse("not a CID of version 1")
        codec, function, size = self.varint(), self.varint(), self.varint()
        if size > 128 or (function == SHA2_256 and size != 32):
            refuse("a digest of another length")
        return codec, function, self.take(size)

    def _head(self) -> tuple[str, int]:
        first = self.take(1)[0]
        if first < 0x80:
            return "int", first
        if 0x90 <= first < 0xA0:
            return "array", first & 0x0F
        if 0xA0 <= first < 0xC0:
            return "str", first & 0x1F
        if first not in WIDE:
            refuse("a type that no message has: map, float, extension or negative number")
        sort, width, least = WIDE[first]
        number = int.from_bytes(self.take(width), "big")
        if number < least:
            refuse("not in its shortest form")
        return sort, number

    def value(self, depth: int = 0) -> Value:
        """Return the next msgpack value."""
        if depth > 16:
            refuse("nested too deep")
        if self.data[self.at : self.at + 1] in (b"\xc0", b"\xc2", b"\xc3"):
            return {0xC0: None, 0xC2: False, 0xC3: True}[self.take(1)[0]]
        sort, number = self._head()
        if sort == "int":
            return number
        if number > len(self.data) - self.at:
            refuse("cut short")
        if sort == "array":
            return [self.value(depth + 1) for _ in range(number)]
        if sort == "bin":
            return self.take(number)
        try:
            return self.take(number).decode("utf-8")
        except UnicodeDecodeError:
            refuse("text that is not UTF-8")


def unpack(data: bytes, limit: int = MAX_MESSAGE) -> Value:
    """Return the one canonical msgpack value that ``data`` is.

    Raises:
        RefusedError: ``data`` is anything else, or longer than ``limit``.
    """
    if len(data) > limit:
        refuse(f"longer than {limit} bytes")
    reader = _Bytes(data)
    value = reader.value()
    reader.end()
    return value


# --- the notation of section 1 --------------------------------------------------------------------------


def number(least: int, most: int) -> Check:
    """Take an integer in ``least..most``."""

    def check(value: Value) -> Field:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            refuse(f"not an integer in {least}..{most}: {value!r:.40}")
        return value

    return check


def blob(least: int, most: int) -> Check:
    """Take ``least..most`` bytes."""

    def check(value: Value) -> Field:
        if not isinstance(value, bytes) or not least <= len(value) <= most:
            refuse(f"not {least}..{most} bytes: {value!r:.40}")
        return value

    return check


def text(most: int = 400, pattern: str = r"(?s:.*)") -> Check:
    """Take text of at most ``most`` characters that matches ``pattern``."""

    def check(value: Value) -> Field:
        if not isinstance(value, str) or len(value) > most or not re.fullmatch(pattern, value):
            refuse(f"not text of {pattern}, at most {most} characters: {value!r:.40}")
        return value

    return check


def one_of(*choices: str) -> Check:
    """Take one of some words."""

    def check(value: Value) -> Field:
        if not isinstance(value, str) or value not in choices:
            refuse(f"not one of {choices}: {value!r:.40}")
        return value

    return check


def many(item: Check, most: int = MAX_MESSAGE, least: int = 0) -> Check:
    """Take an array of ``least..most`` items."""

    def check(value: Value) -> Field:
        if not isinstance(value, list) or not least <= len(value) <= most:
            refuse(f"not an array of {least}..{most}")
        return [item(each) for each in value]

    return check


def optional(item: Check) -> Check:
    """Take an item or nil."""
    return lambda value: None if value is None else item(value)


def array(**fields: Check) -> Check:
    """Take an array of just these fields."""

    def check(value: Value) -> Field:
        if not isinstance(value, list) or len(value) != len(fields):
            refuse(f"not an array of {len(fields)}")
        return {name: take(each) for (name, take), each in zip(fields.items(), value, strict=True)}

    return check


def flag(value: Value) -> Field:
    """Take a boolean."""
    if not isinstance(value, bool):
        refuse("not a boolean")
    return value


def binary_cid(value: Value) -> Field:
    """Take a CID in binary."""
    cid = cast("bytes", blob(4, 128)(value))
    cid_parts(cid)
    return cid


V1 = number(1, 1)
U8, U16, U32, U64 = (number(0, 2**bits - 1) for bits in (8, 16, 32, 64))
COUNT = number(0, 2**53 - 1)
KEY = HASH = blob(32, 32)
BIN8, BIN16 = blob(8, 8), blob(16, 16)
BIN = blob(0, MAX_MESSAGE)
TEXT = text()
TITLE = text(63, "[a-z0-9][a-z0-9-]{0,62}")
PAYEE = text(63, "[a-z0-9][a-z0-9._-]{0,62}")
PAYEE_OR_NONE = text(63, "([a-z0-9][a-z0-9._-]{0,62})?")
TOKEN = text(64, "[A-Za-z0-9_-]{16,64}")
TOKEN_OR_NONE = text(64, "([A-Za-z0-9_-]{16,64})?")
SEQ = number(1, MAX_SEQ)


# --- peer ids, CIDs -------------------------------------------------------------------------------------

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER_PREFIX = bytes.fromhex("002408011220")
SHA2_256, SHA2_512, IDENTITY = 0x12, 0x13, 0x00


def _base58(data: bytes) -> str:
    left, out = int.from_bytes(data, "big"), ""
    while left:
        left, digit = divmod(left, 58)
        out = BASE58[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def _unbase58(letters: str) -> bytes:
    if not re.fullmatch(f"[{BASE58}]{{1,300}}", letters):
        refuse("not base58btc")
    value = 0
    for letter in letters:
        value = value * 58 + BASE58.index(letter)
    zeros = len(letters) - len(letters.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")


def peer_id(key: bytes) -> str:
    """Write a key as a peer id (base58btc)."""
    return _base58(PEER_PREFIX + key)


def peer_key(peer: str) -> bytes:
    """Read the key out of a peer id."""
    data = _unbase58(peer)
    if len(data) != 38 or not data.startswith(PEER_PREFIX):
        refuse("not the peer id of an Ed25519 key")
    return data[6:]


def cid_parts(cid: bytes) -> tuple[int, int, bytes]:
    """Take a binary CID apart: codec, hash function, digest."""
    reader = _Bytes(cid)
    codec, function, digest = reader.cid()
    reader.end()
    return codec, function, digest


def cid_text(cid: bytes) -> str:
    """Write a binary CID as text."""
    cid_parts(cid)
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def cid_bytes(cid: str) -> bytes:
    """Read the text of a CID: base32, base16 or base58, or version 0."""
    if len(cid) > 300:
        refuse("a CID of more than 300 characters")
    if re.fullmatch("Qm.{44}", cid):
        return version_1(_unbase58(cid))
    data = b""
    if re.fullmatch("b[a-z2-7]+", cid):
        try:
            data = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
        except binascii.Error:
            refuse("not base32")
        if cid_text(data) != cid:
            refuse("base32 with bits left over")
    elif re.fullmatch("f([0-9a-f]{2})+", cid):
        data = bytes.fromhex(cid[1:])
    elif cid.startswith("z"):
        data = _unbase58(cid[1:])
    cid_parts(data)
    return data


def version_1(cid: bytes) -> bytes:
    """Turn a CID of version 0, which links and CARs may hold, into the same of version 1."""
    if len(cid) == 34 and cid.startswith(b"\x12\x20"):
        return b"\x01\x70" + cid
    cid_parts(cid)
    return cid


def cid_of(codec: int, data: bytes) -> bytes:
    """Return the CID of a block."""
    return bytes((1, codec, 0x12, 0x20)) + sha256(data)


def check_block(cid: bytes, data: bytes) -> None:
    """Refuse a block whose bytes are not those its CID names."""
    if len(data) > MAX_BLOCK:
        refuse("a block of more than 2 MiB")
    _, function, digest = cid_parts(cid)
    known = {SHA2_256: sha256(data), SHA2_512: hashlib.sha512(data).digest(), IDENTITY: data}
    if known.get(function) != digest:
        refuse("the bytes are not those of the CID")


# --- section 2: dag-pb, UnixFS, CAR ---------------------------------------------------------------------


def _protobuf(data: bytes) -> list[tuple[int, int | bytes]]:
    reader, out = _Bytes(data), list[tuple[int, "int | bytes"]]()
    while reader.at < len(data):
        field, wire = divmod(reader.varint(), 8)
        if wire == 0:
            out.append((field, reader.varint()))
        elif wire in (1, 5):
            out.append((field, reader.take(8 if wire == 1 else 4)))
        elif wire == 2:
            out.append((field, reader.take(reader.varint())))
        else:
            refuse("a protobuf wire type there is not")
    return out


def _link(data: int | bytes) -> Fields:
    parts = _protobuf(data) if isinstance(data, bytes) else refuse("a link that is not a message")
    got = dict(parts)
    if len(got) != len(parts) or set(got) - {1, 2, 3}:
        refuse("a link's field twice, or one that is unknown")
    cid, name, size = got.get(1), got.get(2, b""), got.get(3, 0)
    if not isinstance(cid, bytes) or not isinstance(name, bytes) or not isinstance(size, int):
        refuse("a link's fields of other types")
    if len(name) > 1_024:
        refuse("a name of more than 1,024 bytes")
    return {"cid": cid_text(version_1(cid)), "name": _utf8(name), "tsize": size}


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        refuse("text that is not UTF-8")


UNIXFS = {1: "type", 2: "data", 3: "filesize", 5: "hash", 6: "fanout"}


def _unixfs(data: bytes) -> Fields:
    sizes: list[Field] = []
    out: Fields = dict.fromkeys(UNIXFS.values())
    out |= {"data": b"", "blocksizes": sizes}
    for field, value in _protobuf(data):
        if field == 4:
            packed = _Bytes(value if isinstance(value, bytes) else b"")
            sizes += [] if isinstance(value, bytes) else [value]
            while packed.at < len(packed.data):
                sizes.append(packed.varint())
        elif field in UNIXFS:
            if isinstance(value, bytes) != (field == 2):
                refuse("a UnixFS field of another type")
            out[UNIXFS[field]] = value
    return out


def read_node(data: bytes) -> Fields:
    """Read a dag-pb block: its links and its UnixFS data."""
    if len(data) > MAX_BLOCK:
        refuse("a block of more than 2 MiB")
    parts = _protobuf(data)
    order = [field for field, _ in parts]
    if (
        set(order) - {1, 2}
        or order.count(1) != 1
        or order not in (sorted(order), sorted(order, reverse=True))
    ):
        refuse("not Links and one Data before or after them")
    links = [_link(value) for field, value in parts if field == 2]
    body = dict(parts)[1]
    out = _unixfs(body) if isinstance(body, bytes) else refuse("Data that is not bytes")
    if len(links) > 8_192 or out["type"] not in (0, 1, 2, 4, 5):
        refuse("too many links, or neither file nor folder nor symlink")
    if out["type"] in (0, 2):
        sizes = cast("list[int]", out["blocksizes"])
        whole = len(cast("bytes", out["data"])) + sum(sizes)
        if len(sizes) != len(links) or out["filesize"] not in (whole, None):
            refuse("a file whose sizes do not add up")
        out["filesize"] = whole
    if out["type"] == 1 and not all(_is_name(cast("str", link["name"])) for link in links):
        refuse("a folder with a name no path can reach")
    if out["type"] == 5:
        _check_shard(out, links)
    return {**out, "links": cast("list[Field]", links)}


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _check_shard(node: Fields, links: list[Fields]) -> None:
    fanout = cast("int", node["fanout"])
    if node["hash"] != 0x22 or fanout not in (2**i for i in range(3, 11)) or len(links) > fanout:
        refuse("a shard of another hash or width")
    skip = len(f"{fanout - 1:X}")
    for link in links:
        name = cast("str", link["name"])
        if len(name) < skip or (name[skip:] and not _is_name(name[skip:])):
            refuse("a shard with a link that has no position")


def read_file(cid: str, blocks: Mapping[str, bytes], depth: int = 0) -> bytes:
    """Join a file from its blocks, each checked against its CID and its sizes."""
    binary = cid_bytes(cid)
    codec, function, digest = cid_parts(binary)
    data = digest if function == IDENTITY else blocks[cid]
    check_block(binary, data)
    if codec == 0x55:
        return data
    node = read_node(data)
    if node["type"] not in (0, 2) or depth > 16:
        refuse("not a file")
    links = cast("list[Fields]", node["links"])
    parts = [read_file(cast("str", link["cid"]), blocks, depth + 1) for link in links]
    joined = cast("bytes", node["data"]) + b"".join(parts)
    if [len(part) for part in parts] != node["blocksizes"]:
        refuse("sizes that are not those of the parts")
    return joined


def read_folder(cid: str, blocks: Mapping[str, bytes], depth: int = 0) -> dict[str, str]:
    """List a folder, HAMT-sharded or not: names and CIDs."""
    check_block(cid_bytes(cid), blocks[cid])
    node = read_node(blocks[cid])
    links = cast("list[dict[str, str]]", node["links"])
    if node["type"] == 1:
        return {link["name"]: link["cid"] for link in links}
    if node["type"] != 5 or depth > 16:
        refuse("not a folder")
    prefix, out = len(f"{cast('int', node['fanout']) - 1:X}"), dict[str, str]()
    for link in links:
        if len(link["name"]) == prefix:
            out |= read_folder(link["cid"], blocks, depth + 1)
        else:
            out[link["name"][prefix:]] = link["cid"]
    return out


def _protobuf_varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def _field(field: int, data: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _protobuf_varint(len(data)) + data


def file_cid(chunks: Iterable[bytes], width: int = 1024) -> str:
    """Return the CID of a file cut into ``chunks`` under the profile ``unixfs-v1-2025``."""
    level = [(cid_of(0x55, chunk), len(chunk), len(chunk)) for chunk in chunks] or [(cid_of(0x55, b""), 0, 0)]
    while len(level) > 1:
        above: list[tuple[bytes, int, int]] = []
        for i in range(0, len(level), width):
            group = level[i : i + width]
            size = sum(child[1] for child in group)
            sizes = b"".join(b"\x20" + _protobuf_varint(child[1]) for child in group)
            links = b"".join(
                _field(2, _field(1, cid) + _field(2, b"") + b"\x18" + _protobuf_varint(total))
                for cid, _, total in group
            )
            node = links + _field(1, b"\x08\x02\x18" + _protobuf_varint(size) + sizes)
            above.append((cid_of(0x70, node), size, len(node) + sum(child[2] for child in group)))
        level = above
    return cid_text(level[0][0])


def murmur3(data: bytes) -> int:
    """Hash a name for its place in a sharded folder: the first 64 bits of MurmurHash3 x64-128, seed 0."""
    mask, c1, c2 = 2**64 - 1, 0x87C37B91114253D5, 0x4CF5AD432745937F

    def turn(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & mask

    def stir(x: int) -> int:
        x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & mask
        x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & mask
        return x ^ x >> 33

    h1 = h2 = 0
    for at in range(0, len(data), 16):
        k1 = int.from_bytes(data[at : at + 8], "little")
        k2 = int.from_bytes(data[at + 8 : at + 16], "little")
        h1 ^= turn(k1 * c1 & mask, 31) * c2 & mask
        whole = at + 16 <= len(data)
        if whole:
            h1 = ((turn(h1, 27) + h2) * 5 + 0x52DCE729) & mask
        h2 ^= turn(k2 * c2 & mask, 33) * c1 & mask
        if whole:
            h2 = ((turn(h2, 31) + h1) * 5 + 0x38495AB5) & mask
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & mask
    h2 = (h2 + h1) & mask
    return (stir(h1) + stir(h2)) & mask


def folder_cid(entries: Mapping[str, tuple[bytes, int]]) -> str:
    """Return the CID of a folder of names with their binary CIDs and cumulative sizes, sharded or not."""
    links = b"".join(
        _folder_link(name, *entries[name]) for name in sorted(entries, key=lambda name: name.encode())
    )
    node = links + _field(1, b"\x08\x01")
    if len(node) <= 262_144:
        return cid_text(cid_of(0x70, node))
    placed = {name: murmur3(name.encode()).to_bytes(8, "big") for name in entries}
    return cid_text(_shard([*entries], placed, entries, 0)[0])


def _folder_link(name: str, cid: bytes, total: int) -> bytes:
    return _field(2, _field(1, cid) + _field(2, name.encode()) + b"\x18" + _protobuf_varint(total))


def _shard(
    names: list[str], placed: Mapping[str, bytes], entries: Mapping[str, tuple[bytes, int]], level: int
) -> tuple[bytes, int]:
    """Write the shard of ``names``, whose hashes agree in their first ``level`` bytes."""
    if level == 8:
        refuse("names of one hash")
    links, field, size = b"", 0, 0
    for place in range(256):
        here = [name for name in names if placed[name][level] == place]
        if not here:
            continue
        field |= 1 << place
        if len(here) == 1:
            cid, total = entries[here[0]]
            links += _folder_link(f"{place:02X}{here[0]}", cid, total)
        else:
            cid, total = _shard(here, placed, entries, level + 1)
            links += _folder_link(f"{place:02X}", cid, total)
        size += total
    bits = field.to_bytes(32, "big").lstrip(b"\0")
    node = links + _field(1, b"\x08\x05" + _field(2, bits) + b"\x28\x22\x30\x80\x02")
    return cid_of(0x70, node), len(node) + size


def _car_roots(header: bytes) -> list[str]:
    """Read ``{"roots": [...], "version": 1}`` in dag-cbor: key order and lengths leave one form only."""
    reader = _Bytes(header)
    if reader.take(7) != b"\xa2\x65roots":
        refuse("not the header of a CARv1")
    head = reader.take(1)[0]
    if not 0x80 <= head < 0x98:
        refuse("a list of roots we do not read")
    roots = list[str]()
    for _ in range(head & 0x1F):
        mark = reader.take(3)
        size = reader.take(1)[0] if mark == b"\xd8\x2a\x58" else mark[2] - 0x40
        if mark[:2] != b"\xd8\x2a" or size < (24 if mark[2] == 0x58 else 1):
            refuse("a root that is no CID")
        cid = reader.take(size)
        if cid[:1] != b"\0":
            refuse("a root that is no CID")
        roots.append(cid_text(version_1(cid[1:])))
    if reader.take(9) != b"\x67version\x01":
        refuse("not version 1")
    reader.end()
    return roots


def _car(data_: bytes, given: Given) -> Field:
    del given
    reader, blocks = _Bytes(data_), list[Field]()
    roots = _car_roots(reader.take(reader.varint()))
    while reader.at < len(data_):
        section = _Bytes(reader.take(reader.varint()))
        if section.data.startswith(b"\x12\x20"):
            cid = version_1(section.take(34))
        else:
            section.cid()
            cid = section.data[: section.at]
        data = section.data[section.at :]
        check_block(cid, data)
        blocks.append({"cid": cid_text(cid), "data": data})
    return {"roots": cast("list[Field]", roots), "blocks": blocks}


# --- section 3: the log ---------------------------------------------------------------------------------


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Hash a tree (RFC 9162 section 2.1.1)."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00", leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01", merkle_root(leaves[:split]), merkle_root(leaves[split:]))


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check an inclusion proof (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        refuse("no such leaf")
    fn, sn, r = index, size - 1, sha256(b"\x00", leaf)
    for p in proof:
        if sn == 0:
            refuse("a proof too long")
        if fn & 1 or fn == sn:
            r = sha256(b"\x01", p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01", r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn or r != root:
        refuse("the proof does not lead to the root")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162 section 2.1.4.2; the trivial cases need an empty proof)."""
    if old > new or ((old in (0, new)) != (not proof)):
        refuse("a proof of other length")
    if (old == new and old_root != new_root) or (old == 0 and old_root != sha256(b"")):
        refuse("two roots of one size")
    if old not in (0, new):
        _check_path(old, old_root, new, new_root, proof)


def _check_path(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            refuse("a proof too long")
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\x01", c, fr), sha256(b"\x01", c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\x01", sr, c)
        fn, sn = fn >> 1, sn >> 1
    if fr != old_root or sr != new_root or sn:
        refuse("the proof does not lead to both roots")


def note_key_id(name: str, key: bytes) -> bytes:
    """Return the four bytes by which a signed note names its key."""
    return sha256(name.encode(), b"\n\x01", key)[:4]


def _checkpoint(data: bytes, given: Given) -> Field:
    name, key = cast("str", given["name"]), cast("bytes", given["key"])
    note = _utf8(data)
    if len(data) > 98_304 or re.search("[\0-\x09\x0b-\x1f]", note) or not note.endswith("\n"):
        refuse("not a signed note")
    body, gap, tail = note.rpartition("\n\n")
    match = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]{0,18})\n([^\n]+)\ntime (0|[1-9][0-9]{0,18})", body)
    if not gap or match is None or match[1] != name or max(int(match[2]), int(match[4])) >= 2**63:
        refuse("not a checkpoint of this log")
    lines = [re.fullmatch(r"— ([^\s+]+) (\S+)", line) for line in tail[:-1].split("\n")]
    signatures = [
        (line[1], _base64(line[2], exact=False)) if line else refuse("not a signature") for line in lines
    ]
    mine = [sig[4:] for who, sig in signatures if (who, sig[:4]) == (name, note_key_id(name, key))]
    if len(lines) > 16 or min(len(sig) for _, sig in signatures) <= 4 or not mine:
        refuse("not signed by the log's key, or by too many")
    if not all(verify(key, sig, f"{body}\n".encode()) for sig in mine):
        refuse("the signature does not verify")
    root = _base64(match[3])
    if len(root) != 32:
        refuse("a root that is not 32 bytes")
    return {"origin": name, "size": int(match[2]), "root": root, "time_ms": int(match[4])}


def _base64(letters: str, *, exact: bool = True) -> bytes:
    try:
        data = base64.b64decode(letters, validate=True)
    except ValueError:
        refuse("not base64")
    if exact and base64.b64encode(data).decode() != letters:
        refuse("base64 with bits left over")
    return data


def _compact(data: bytes, given: Given) -> Field:
    if len(data) != 117 or data[0] != 1:
        refuse("not a compact checkpoint")
    name = cast("str", given["name"])
    size, time = int.from_bytes(data[1:9], "big"), int.from_bytes(data[41:49], "big")
    root, signature = (base64.b64encode(part).decode() for part in (data[9:41], data[49:]))
    note = f"{name}\n{size}\n{root}\ntime {time}\n\n— {name} {signature}\n"
    return _checkpoint(note.encode(), given)


def _inclusion(data: bytes, given: Given) -> Field:
    proof = cast("list[bytes]", many(HASH, 128)(unpack(data)))
    leaf, root = cast("bytes", given["leaf"]), cast("bytes", given["root"])
    check_inclusion(leaf, cast("int", given["index"]), cast("int", given["size"]), proof, root)
    return {"proof": cast("list[Field]", proof)}


def _consistency(data: bytes, given: Given) -> Field:
    proof = cast("list[bytes]", many(HASH, 128)(unpack(data)))
    old, new = cast("int", given["old_size"]), cast("int", given["size"])
    check_consistency(old, cast("bytes", given["old_root"]), new, cast("bytes", given["root"]), proof)
    return {"proof": cast("list[Field]", proof)}


def follow(old: Fields | None, new: Fields, entries: Sequence[bytes]) -> None:
    """Refuse a checkpoint that a follower must refuse, ``entries`` being all it names."""
    if old is not None and cast("int", new["size"]) < cast("int", old["size"]):
        refuse("rollback: a smaller log")
    if old is not None and cast("int", new["time_ms"]) < cast("int", old["time_ms"]):
        refuse("an older checkpoint")
    if len(entries) != new["size"]:
        refuse("entries are missing")
    if merkle_root(entries) != new["root"]:
        refuse("equivocation: the root is not that of the entries")


# --- the messages ---------------------------------------------------------------------------------------

PATH = text(400)
RENDITION = array(
    name=TEXT,
    kind=one_of("video", "audio"),
    path=PATH,
    codecs=TEXT,
    bandwidth=COUNT,
    average_bandwidth=COUNT,
    width=COUNT,
    height=COUNT,
    frame_rate_milli=COUNT,
    language=TEXT,
    segments=COUNT,
    size_bytes=COUNT,
)
TRACK = array(kind=one_of("poster", "subtitles", "storyboard"), path=PATH, language=TEXT, label=TEXT)
MANIFEST = array(
    v=V1,
    title=TITLE,
    version=number(1, 2**32 - 1),
    publisher=KEY,
    name=TEXT,
    description=text(4_000),
    language=TEXT,
    duration_ms=COUNT,
    root=binary_cid,
    size_bytes=COUNT,
    renditions=many(RENDITION, 64),
    tracks=many(TRACK, 64),
    window=array(from_ms=COUNT, until_ms=COUNT),
    territories=many(text(2, "[A-Z]{2}"), 250),
    payees=many(array(payee=PAYEE, points=number(1, 10_000)), 64),
    access=one_of("open", "ticket"),
    protection=optional(array(scheme=one_of("aes-128"), key_ids=many(BIN16))),
    created_ms=COUNT,
    supersedes=lambda value: b"" if value == b"" else binary_cid(value),
)
ENTRY = array(
    v=V1,
    action=one_of("publish", "supersede", "retire", "deny"),
    title=TITLE,
    manifest=binary_cid,
    at_ms=COUNT,
)
PAGE = array(v=V1, start=COUNT, entries=many(BIN, MAX_ITEMS))
ENDPOINT = array(host=text(253, "(?s:.+)"), port=number(1, 65_535), web=flag)
KEYS = many(KEY, 16, 1)
KEYRING = array(
    v=V1,
    name=TEXT,
    box=KEY,
    catalog=KEYS,
    ticket=KEYS,
    intake=KEYS,
    settlement=KEYS,
    publishers=KEYS,
    endpoints=many(ENDPOINT, 16),
    cdn=many(TEXT, 16),
)
RECORD = array(
    v=V1,
    relay=KEY,
    endpoints=many(ENDPOINT, 8, 1),
    payee=PAYEE_OR_NONE,
    created_ms=COUNT,
    expires_ms=COUNT,
)
ROTATION = array(v=V1, relay=KEY, old=KEY, new=KEY, at_ms=COUNT, consent=blob(64, 64))
DIRECTORY = array(v=V1, issued_ms=COUNT, expires_ms=COUNT, records=many(BIN, 10_000))
REQUEST = array(
    v=V1,
    method=text(16),
    path=text(2_048),
    nonce=blob(1, 64),
    body_hash=HASH,
    key=KEY,
    audience=blob(0, 32),
    at_ms=COUNT,
)
TICKET = array(v=V1, tid=BIN16, day=U16, session=KEY, sealed=blob(0, 64))
PULSE = array(
    v=V1,
    tid=BIN16,
    seq=SEQ,
    at_ms=COUNT,
    cum_ms=U32,
    delta_ms=number(0, 121_000),
    beacon=U32,
    prev=HASH,
    box=blob(192, 192),
)
VIEWING = array(
    state=number(1, 4),
    manifest=HASH,
    position_ms=U32,
    rendition=U8,
    served=many(array(tier=number(1, 4), relay=blob(0, 16), kbytes=U32), 4),
    witness=BIN16,
)
SEALED = array(account=BIN16, device=U16)
BEACON = array(v=V1, number=U32, value=HASH, at_ms=COUNT)
POST = array(v=V1, tickets=many(BIN, MAX_ITEMS), pulses=many(BIN, MAX_ITEMS))
BATCH = array(
    v=V1,
    carrier=KEY,
    number=number(1, 2**53 - 1),
    prev=HASH,
    opened_ms=COUNT,
    closed_ms=COUNT,
    root=HASH,
    tickets=many(BIN, MAX_ITEMS),
    received_ms=many(COUNT, MAX_ITEMS),
)
PARCEL = array(batch=BIN, pulses=many(BIN, MAX_ITEMS))
RECEIPT = array(v=V1, carrier=KEY, root=HASH, count=COUNT, at_ms=COUNT)
ANY_SEQ = number(0, MAX_SEQ)
CODED = many(array(seq=ANY_SEQ, code=text(40)), MAX_SEQ)
TID_ACK = array(tid=BIN16, upto=ANY_SEQ, extra=many(ANY_SEQ, MAX_SEQ), rejects=CODED)
ACK = array(
    v=V1,
    batch=HASH,
    tids=many(TID_ACK, MAX_ITEMS),
    segment=text(40),
    offset=COUNT,
    log_size=COUNT,
    log_root=HASH,
    at_ms=COUNT,
)
SPAN = array(first=SEQ, last=SEQ)
HELD = array(tid=BIN16, spans=many(SPAN, MAX_SEQ // 2), twins=many(SEQ, MAX_SEQ))
DIGEST = array(v=V1, held=many(HELD, 256))
LACKING = array(v=V1, held=many(HELD, 256), acks=many(BIN, 64))
HINT = array(v=V1, net=BIN8, topic=one_of("head", "relay"), news=blob(1, 1_024))
HINT_POST = array(v=V1, hints=many(blob(0, 1_088), 8, 1))
GOSSIP_PLACE = array(v=V1, port=number(1, 65_535), key=KEY)
EVIDENCE = array(v=V1, ticket=blob(0, 1_024), pulses=many(blob(0, 1_024), 4, 2))
SEAL = array(v=V1, tid=BIN16, first=ANY_SEQ, last=ANY_SEQ, counted_ms=COUNT, codes=CODED)
WAYBILL = array(v=V1, carrier=KEY, number=number(1, 2**53 - 1), batch=HASH, pulses=number(1, MAX_ITEMS))
PRESENCE = array(
    v=number(2, 2),
    net=BIN8,
    key=KEY,
    port=number(1, 65_535),
    at_ms=COUNT,
    active=flag,
    ask=flag,
    hops=number(0, 16),
    leaving=flag,
)
GENERATION = array(
    v=V1,
    origin=BIN8,
    number=U64,
    length=number(1, MAX_BUNDLE),
    symbol_bytes=number(64, 1_408),
    digest=HASH,
    expires_ms=COUNT,
)
STICK_INDEX = array(
    v=V1,
    box=KEY,
    name=TEXT,
    made_ms=COUNT,
    titles=many(
        array(title=TITLE, manifest=binary_cid, blocks=COUNT, size_bytes=COUNT, volumes=number(1, 9_999)),
        4_096,
    ),
)
BUNDLE_KIND = one_of("trust", "checkpoint", "entries", "directory", "beacon", "ack", "block", "timetable")
BUNDLE = array(v=V1, items=many(array(kind=BUNDLE_KIND, name=text(300), data=blob(0, MAX_BUNDLE)), 65_536))

TIMETABLE = array(
    v=V1,
    at_ms=COUNT,
    rate_bps=COUNT,
    turns=many(array(title=TITLE, begins_s=U32, whole_s=U32), 64),
)
SYMBOL_ASK = array(
    v=V1,
    number=U64,
    symbol_bytes=number(64, 1_408),
    held=blob(0, 65_536),
    most=number(1, 800),
)

LABEL = text(40, "(?s:.+)")
MONTH = text(7, "[0-9]{4}-(0[1-9]|1[0-2])")
RULES = array(
    v=number(2, 3),
    currency=text(3, "[A-Z]{3}"),
    live_window_ms=COUNT,
    gap_ms=COUNT,
    session_cap_ms=COUNT,
    day_cap_ms=COUNT,
    slack_ms=COUNT,
    late_window_ms=COUNT,
    reserve_points=number(0, 10_000),
    reserve_base=one_of("revenue", "surplus"),
    median_factor=COUNT,
    median_accounts=COUNT,
    near_cap_ms=COUNT,
    near_cap_days=COUNT,
    payer_factor=COUNT,
    relay_cents_per_gb=COUNT,
    group_viewers=COUNT,
    mode=one_of("pooled", "per_payer"),
    appeal_ms=COUNT,
    relay_bytes_s=COUNT,
)
STATEMENT = array(
    v=V1,
    month=MONTH,
    as_of_ms=COUNT,
    previous=HASH,
    rules=RULES,
    revenue_cents=COUNT,
    booked_costs_cents=COUNT,
    relay_pay_cents=COUNT,
    reserve_cents=COUNT,
    deficit_cents=COUNT,
    brought_cents=COUNT,
    pool_cents=COUNT,
    paid_cents=COUNT,
    held_cents=COUNT,
    carried_cents=COUNT,
    capped_cents=COUNT,
    payers_known=flag,
    accounts=COUNT,
    pulses=COUNT,
    viewed_ms=COUNT,
    relays=many(array(relay=KEY, kbytes=COUNT, cents=COUNT, over_kbytes=COUNT, keys=many(KEY, 256)), 10_000),
    days=many(array(day=LABEL, viewers=COUNT, pulses=COUNT, viewed_ms=COUNT), 100),
    flags=many(array(rule=LABEL, accounts=COUNT, held_cents=COUNT), 32),
    uncounted=many(array(code=LABEL, pulses=COUNT, ms=COUNT), 64),
    leaves=COUNT,
    leaves_root=HASH,
    log_size=COUNT,
    log_root=HASH,
    tickets_hash=HASH,
)
FILE = array(name=text(53, r"[a-z0-9_]{1,40}\.[a-z]{2,12}"), size=COUNT, sha256=HASH)
SETTLE = array(v=V1, statement=STATEMENT, files=many(FILE, 32))
GROWTH = array(
    v=V1,
    month=text(7, "([0-9]{4}-(0[1-9]|1[0-2]))?"),
    size=COUNT,
    root=HASH,
    proof=many(HASH, 128),
)
LINE = array(
    platform=KEY,
    payee=PAYEE,
    month=MONTH,
    weight=number(0, 2**63 - 1),
    share_cents=COUNT,
    paid_cents=COUNT,
    held_cents=COUNT,
    capped_cents=COUNT,
    per_payer_cents=COUNT,
)

CODES = many(array(code=LABEL, pulses=COUNT, ms=COUNT), 64)
EARNINGS = array(
    v=V1,
    currency=text(3, "[A-Z]{3}"),
    months=many(
        array(
            month=MONTH,
            settled=flag,
            as_of_ms=COUNT,
            revenue_known=flag,
            relays=many(
                array(relay=KEY, kbytes=COUNT, over_kbytes=COUNT, cents_per_gb=COUNT, cents=COUNT), 16
            ),
            payees=many(
                array(
                    payee=PAYEE,
                    titles=many(array(title=text(63), viewed_ms=COUNT, points=COUNT), 1_000),
                    share_cents=COUNT,
                    paid_cents=COUNT,
                    held_cents=COUNT,
                    capped_cents=COUNT,
                    uncounted=CODES,
                ),
                16,
            ),
        ),
        2,
    ),
)

# kind: (fields, field that holds the signer's key or "" where it is given, most bytes of the envelope)
SIGNED: dict[str, tuple[Check, str, int]] = {
    "manifest": (MANIFEST, "publisher", 262_144),
    "ticket": (TICKET, "", 1_024),
    "pulse": (PULSE, "", 1_024),
    "batch": (BATCH, "carrier", MAX_MESSAGE),
    "receipt": (RECEIPT, "carrier", MAX_MESSAGE),
    "ack": (ACK, "", MAX_MESSAGE),
    "seal": (SEAL, "", MAX_MESSAGE),
    "evidence": (EVIDENCE, "", 8_192),
    "beacon": (BEACON, "", 512),
    "presence": (PRESENCE, "key", 160),
    "waybill": (WAYBILL, "carrier", 160),
    "record": (RECORD, "relay", MAX_MESSAGE),
    "rotation": (ROTATION, "new", MAX_MESSAGE),
    "directory": (DIRECTORY, "", MAX_MESSAGE),
    "generation": (GENERATION, "", 256),
    "request": (REQUEST, "key", 3_072),
    "settle": (SETTLE, "", MAX_MESSAGE),
}

# kind: (fields, most bytes) of what is not signed by itself
PLAIN: dict[str, tuple[Check, int]] = {
    "growth": (GROWTH, MAX_MESSAGE),
    "entry": (ENTRY, 512),
    "page": (PAGE, MAX_MESSAGE),
    "keyring": (KEYRING, 65_536),
    "post": (POST, MAX_MESSAGE),
    "parcel": (PARCEL, MAX_MESSAGE),
    "digest": (DIGEST, 65_536),
    "lacking": (LACKING, 524_288),
    "hint": (HINT, 1_088),
    "hint-post": (HINT_POST, 8_744),
    "gossip-place": (GOSSIP_PLACE, 1_088),
    "bundle": (BUNDLE, MAX_BUNDLE),
    "stick-index": (STICK_INDEX, 2 << 20),
    "timetable": (TIMETABLE, 8_192),
    "symbol-ask": (SYMBOL_ASK, 81_920),
    "viewing": (VIEWING, 174),
    "device-request": (array(v=V1, token=TOKEN, device=KEY), MAX_ENROL),
    "device-answer": (array(v=V1, device=U16), MAX_ENROL),
    "ticket-request": (array(v=V1, wishes=many(array(day=U16, session=KEY), 15, 1)), MAX_ENROL),
    "ticket-answer": (array(v=V1, grants=many(array(ticket=BIN, key=HASH), 15)), MAX_ENROL),
    "relay-request": (
        array(
            v=number(2, 2),
            token=TOKEN_OR_NONE,
            record=blob(0, 4_096),
            wish=one_of("listed", "unlisted", "paused", "left"),
        ),
        MAX_ENROL,
    ),
    "relay-answer": (
        array(
            v=number(2, 2),
            standing=one_of("pending", "approved", "refused"),
            reason=text(400),
            listed=flag,
            faults=many(
                array(endpoint=text(270, r"(?s:.+)"), lost=one_of("both", "tcp", "udp"), why=text(200)), 8
            ),
        ),
        MAX_ENROL,
    ),
    "check-request": (
        array(v=V1, key=KEY, port=number(1, 65_535), padding=blob(0, 2 << 20)),
        (2 << 20) + 4_096,
    ),
    "check-answer": (
        array(
            v=V1,
            seen=text(64),
            tcp=text(200),
            udp=text(200),
            at_ms=COUNT,
            read_ms=COUNT,
            padding=blob(0, 2 << 20),
        ),
        (2 << 20) + 4_096,
    ),
    "earnings-request": (array(v=V1, month=text(7, "([0-9]{4}-(0[1-9]|1[0-2]))?")), 1_024),
    "earnings-answer": (EARNINGS, 256 << 10),
    "key-request": (array(v=V1, ticket=blob(0, 1_024), key_ids=many(BIN16, 16, 1)), 2_048),
    "key-answer": (array(v=V1, grants=many(array(key_id=BIN16, key=BIN16, until_ms=COUNT), 16)), 2_048),
    "line": (LINE, 512),
    "envelopes": (many(BIN), MAX_MESSAGE),
}


def open_envelope(kind: str, data: bytes, key: bytes | None = None) -> tuple[Fields, bytes]:
    """Open a signed envelope: its fields and its body; ``key`` where the message does not hold it."""
    fields, holder, limit = SIGNED[kind]
    envelope = cast("Fields", array(body=BIN, sig=blob(64, 64))(unpack(data, limit)))
    body, signature = cast("bytes", envelope["body"]), cast("bytes", envelope["sig"])
    message = cast("Fields", fields(unpack(body)))
    signer = cast("bytes", message[holder]) if holder else key
    if signer is None:
        refuse(f"a {kind} needs its signer's key")
    if not verify(signer, signature, b"farcast/" + kind.encode() + b"/v1\0" + body):
        refuse("the signature does not verify")
    extra = EXTRA.get(kind)
    if extra is not None:
        extra(message)
    return message, body


def _manifest_rules(m: Fields) -> None:
    payees = cast("list[dict[str, int]]", m["payees"])
    if sum(each["points"] for each in payees) != 10_000 or len({p["payee"] for p in payees}) != len(payees):
        refuse("the payees' points are not 10,000, or one is named twice")
    if m["access"] == "open" and m["protection"] is not None:
        refuse("an open title with protection")
    protection = cast("dict[str, list[Field]] | None", m["protection"])
    if m["access"] == "ticket" and (protection is None or len(protection["key_ids"]) != 1):
        refuse("a ticket title that does not name one key")


def _parcel_rules(m: Fields) -> None:
    pulses = cast("list[bytes]", m["pulses"])
    batch, _ = open_envelope("batch", cast("bytes", m["batch"]))
    if len(cast("list[Field]", batch["received_ms"])) != len(pulses):
        refuse("not one receive time per pulse")
    pages = [pulses[start : start + 64] for start in range(0, len(pulses), 64)]
    if merkle_root([pack_bins(page) for page in pages]) != batch["root"]:
        refuse("the root is not that of the pulses")


def pack_bins(items: Sequence[bytes]) -> bytes:
    """Encode an array of byte strings (section 1)."""
    count = len(items)
    head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    for item in items:
        size = next(size for size in (1, 2, 4) if len(item) < 1 << 8 * size)
        head += bytes([{1: 0xC4, 2: 0xC5, 4: 0xC6}[size]]) + len(item).to_bytes(size, "big") + item
    return head


def _digest_rules(m: Fields) -> None:
    tickets = cast("list[Fields]", m["held"])
    if len({cast("bytes", each["tid"]) for each in tickets}) != len(tickets):
        refuse("a ticket named twice")
    for each in tickets:
        spans, twins = cast("list[dict[str, int]]", each["spans"]), cast("list[int]", each["twins"])
        numbers = [seq for span in spans for seq in range(span["first"], span["last"] + 1)]
        gaps = [later["first"] - one["last"] for one, later in itertools.pairwise(spans)]
        if any(span["last"] < span["first"] for span in spans) or any(gap < 2 for gap in gaps):
            refuse("spans that do not ascend apart from each other")
        if twins != sorted(set(twins)) or not set(twins) <= set(numbers):
            refuse("twins that are none of the numbers")


def _stick_rules(m: Fields) -> None:
    titles = [each["title"] for each in cast("list[Fields]", m["titles"])]
    if len(set(titles)) != len(titles):
        refuse("a title named twice")


def _evidence_rules(m: Fields) -> None:
    envelope = cast("Fields", array(body=BIN, sig=blob(64, 64))(unpack(cast("bytes", m["ticket"]))))
    ticket = cast("Fields", TICKET(unpack(cast("bytes", envelope["body"]))))
    session = cast("bytes", ticket["session"])
    pulses = [open_envelope("pulse", each, session) for each in cast("list[bytes]", m["pulses"])]
    hashes = [sha256(b"farcast/pulse/v1\0", body) for _, body in pulses]
    if any(pulse["tid"] != ticket["tid"] for pulse, _ in pulses):
        refuse("a pulse of another ticket")
    if any(pulse["seq"] != pulses[0][0]["seq"] for pulse, _ in pulses) or hashes != sorted(set(hashes)):
        refuse("bodies that do not contradict each other")


def _symbol_rules(m: Fields) -> None:
    if cast("int", m["symbol_bytes"]) % 64:
        refuse("symbols that are not a multiple of 64 bytes")


def _generation_rules(m: Fields) -> None:
    _symbol_rules(m)
    if m["number"] != int.from_bytes(cast("bytes", m["digest"])[:8], "big"):
        refuse("the number is not that of the digest")
    if -(-cast("int", m["length"]) // cast("int", m["symbol_bytes"])) > 56_403:
        refuse("more symbols than one source block has")


def _rotation_rules(m: Fields) -> None:
    keys = b"".join(cast("bytes", m[name]) for name in ("relay", "old", "new"))
    agreed = b"farcast/rotation/v1\0" + keys + cast("int", m["at_ms"]).to_bytes(8, "big")
    if not verify(cast("bytes", m["old"]), cast("bytes", m["consent"]), agreed):
        refuse("the old key does not agree")


EXTRA: dict[str, Callable[[Fields], None]] = {
    "manifest": _manifest_rules,
    "parcel": _parcel_rules,
    "evidence": _evidence_rules,
    "generation": _generation_rules,
    "rotation": _rotation_rules,
    "digest": _digest_rules,
    "lacking": _digest_rules,
    "stick-index": _stick_rules,
    "symbol-ask": _symbol_rules,
}


# --- section 6: what tickets and pulses hide ------------------------------------------------------------


def ticket_key(secret: bytes, tid: bytes) -> bytes:
    """Derive a ticket's key from the origin's secret."""
    return hkdf(secret, b"farcast/ticket-key/v1\0" + tid)


def open_sealed(secret: bytes, ticket: Fields) -> Fields:
    """Open what a ticket seals for the origin."""
    tid = cast("bytes", ticket["tid"])
    plain = unbox(hkdf(secret, b"farcast/ticket-seal/v1\0"), tid[:12], cast("bytes", ticket["sealed"]), tid)
    return cast("Fields", SEALED(unpack(plain)))


def _ticket(data: bytes, given: Given) -> Field:
    ticket, _ = open_envelope("ticket", data, cast("bytes", given["key"]))
    if "secret" in given:
        secret = cast("bytes", given["secret"])
        key = ticket_key(secret, cast("bytes", ticket["tid"]))
        ticket |= {"opened": open_sealed(secret, ticket), "ticket_key": key}
    return ticket


def _pulse(data: bytes, given: Given) -> Field:
    pulse, body = open_envelope("pulse", data, cast("bytes", given["key"]))
    if "ticket" in given:
        signer = cast("bytes", given["ticket_signer"])
        ticket, _ = open_envelope("ticket", cast("bytes", given["ticket"]), signer)
        if (pulse["tid"], given["key"]) != (ticket["tid"], ticket["session"]):
            refuse("a pulse of another ticket")
    if "ticket_key" in given:
        nonce = cast("int", pulse["seq"]).to_bytes(12, "big")
        # the first eight of nine fields: one array header, then the body without header and box
        box = cast("bytes", pulse["box"])
        associated = b"\x98" + body[1 : -len(box) - 2]
        plain = unbox(cast("bytes", given["ticket_key"]), nonce, box, associated)
        size = int.from_bytes(plain[:2], "big")
        if size > 174 or any(plain[2 + size :]):
            refuse("a viewing that is not padded with zeros")
        pulse["viewing"] = VIEWING(unpack(plain[2 : 2 + size]))
    return pulse


def check_chain(ticket: bytes, ticket_signer: bytes, pulses: Sequence[bytes]) -> None:
    """Check that ``pulses`` are one ticket's, dense and each naming the one before."""
    opened, body = open_envelope("ticket", ticket, ticket_signer)
    prev, cum = sha256(b"farcast/ticket/v1\0", body), 0
    for seq, envelope in enumerate(pulses, start=1):
        pulse, body = open_envelope("pulse", envelope, cast("bytes", opened["session"]))
        cum += cast("int", pulse["delta_ms"])
        if (pulse["tid"], pulse["seq"], pulse["prev"], pulse["cum_ms"]) != (opened["tid"], seq, prev, cum):
            refuse("not the next pulse of this ticket")
        prev = sha256(b"farcast/pulse/v1\0", body)


def witness(beacon: bytes, tid: bytes, seq: int, block: bytes) -> bytes:
    """Return the witness of having had ``block`` once the beacon's value was known."""
    message = tid + seq.to_bytes(4, "big") + block
    return hashlib.blake2b(message, digest_size=16, key=beacon, person=b"farcast/witness\0").digest()


def pair(seed: bytes, key: bytes) -> bytes:
    """Return what the holder of ``seed`` shares with that of ``key``: X25519 on the Edwards side."""
    wide = bytearray(hashlib.sha512(seed).digest()[:32])
    wide[0] &= 248
    wide[31] = wide[31] & 127 | 64
    scalar, point = int.from_bytes(wide, "little"), _point(key)
    if point is None:
        refuse("a key that is no point")
    own = _compress(_times(scalar, BASE))
    y = int.from_bytes(_compress(_times(scalar, point)), "little") & ((1 << 255) - 1)
    u = (1 + y) * pow(1 - y, -1, P) % P
    both = u.to_bytes(32, "little") + min(own, key) + max(own, key)
    return hashlib.blake2b(both, digest_size=32, person=b"farcast/pair").digest()


def _told(data: bytes, given: Given) -> Field:
    if len(data) > 160:
        refuse("more than a datagram of presence has")
    mark, envelope = data[1:17], data[17:]
    presence, _ = open_envelope("presence", envelope)
    key = pair(cast("bytes", given["seed"]), cast("bytes", presence["key"]))
    if data[0] or hashlib.blake2b(envelope, digest_size=16, key=key, person=b"farcast/told").digest() != mark:
        refuse("somebody else's mark")
    return presence


def _directory(data: bytes, given: Given) -> Field:
    directory, _ = open_envelope("directory", data, cast("bytes", given["key"]))
    good = list[Field]()
    for envelope in cast("list[bytes]", directory["records"]):
        try:
            good.append(open_envelope("record", envelope)[0])
        except RefusedError:
            continue
    return {**directory, "good": good}


# --- sections 4 and 9: links, certificates, packets -----------------------------------------------------


HOST = r"(?i:([a-z0-9._-]{1,253})|\[([0-9a-f:.]{2,45})\])"


def _invite(data: bytes, given: Given) -> Field:
    del given
    link = re.fullmatch(rf"farcast://{HOST}:([0-9]{{1,5}})/join\?([^#]+)", _utf8(data).strip())
    if link is None or len(data) > 1_024 or not 1 <= int(link[3]) <= 65_535:
        refuse("not an invite link")
    try:
        ipaddress.IPv6Address(link[2] or "::")
        pairs = parse_qsl(link[4], strict_parsing=True)
    except ValueError:
        refuse("a query that cannot be read")
    query = dict(pairs)
    if len(query) != len(pairs) or set(query) - {"root", "token", "kind"}:
        refuse("a parameter twice, or one that is unknown")
    if not re.fullmatch("[0-9a-f]{64}", query.get("root", "")):
        refuse("root is not a SHA-256 in hex")
    return {
        "host": (link[1] or link[2]).lower(),
        "port": int(link[3]),
        "root": query["root"],
        "token": TOKEN_OR_NONE(query.get("token", "")),
        "kind": one_of("viewer", "relay")(query.get("kind", "viewer")),
    }


# P-256 (FIPS 186-5, SEC 2) for the one thing it is needed for: that a certificate signed itself

P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
EXTENSION_OID = bytes.fromhex("060a2b0601040183a25a0101")


def _p256_add(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P256 == 0:
            return None
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, P256)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P256)
    x = (slope * slope - a[0] - b[0]) % P256
    return x, (slope * (a[0] - x) - a[1]) % P256


def _p256_times(scalar: int, point: tuple[int, int] | None) -> tuple[int, int] | None:
    total: tuple[int, int] | None = None
    while scalar:
        total = _p256_add(total, point) if scalar & 1 else total
        point, scalar = _p256_add(point, point), scalar >> 1
    return total


def verify_p256(key: tuple[int, int], r: int, s: int, message: bytes) -> bool:
    """Verify an ECDSA signature over SHA-256."""
    x, y = key
    if max(x, y) >= P256 or (y * y - x**3 + 3 * x - P256_B) % P256:
        return False
    if not (0 < r < P256_ORDER and 0 < s < P256_ORDER):
        return False
    inverse = pow(s, -1, P256_ORDER)
    hashed = int.from_bytes(sha256(message), "big")
    point = _p256_add(
        _p256_times(hashed * inverse % P256_ORDER, P256_BASE), _p256_times(r * inverse % P256_ORDER, key)
    )
    return point is not None and point[0] % P256_ORDER == r


def _der(reader: _Bytes) -> tuple[int, bytes, bytes]:
    """Return the next DER element: tag, content, and the whole of it."""
    start = reader.at
    tag, size = reader.take(1)[0], reader.take(1)[0]
    if size >= 0x80:
        wide = reader.take(size & 0x7F)
        size = int.from_bytes(wide, "big")
        if size < 0x80 or wide[0] == 0:
            refuse("a DER length not in its shortest form")
    content = reader.take(size)
    return tag, content, reader.data[start : reader.at]


def _elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    reader, out = _Bytes(data), list[tuple[int, bytes, bytes]]()
    while reader.at < len(data):
        out.append(_der(reader))
    return out


def _extension(extensions: bytes) -> bytes:
    for _, extension, _ in _elements(_elements(extensions)[0][1]):
        parts = _elements(extension)
        if parts[0][2] == EXTENSION_OID:
            return parts[-1][1]
    refuse("a certificate without a Farcast key")


def _certificate(data: bytes, given: Given) -> Field:
    """Read the key that vouches for a peer's certificate (RFC 5280 section 4.1; libp2p TLS)."""
    del given
    try:
        [(_, whole, _)] = _elements(data)
        (_, fields, signed), (_, _, algorithm), (_, sig, _) = _elements(whole)
        parts = _elements(fields)
        spki, extension = parts[6][2], _extension(parts[7][1])
        (_, r, _), (_, s, _) = _elements(_elements(sig[1:])[0][1])
    except (ValueError, IndexError):
        refuse("not a certificate")
    if not spki.startswith(SPKI_HEAD) or len(spki) != len(SPKI_HEAD) + 64:
        refuse("not a P-256 certificate")
    if algorithm != ECDSA_SHA256 or parts[2][2] != algorithm or parts[3][2] != parts[5][2]:
        refuse("a certificate of another signature, or issued by somebody else")
    own = (int.from_bytes(spki[-64:-32], "big"), int.from_bytes(spki[-32:], "big"))
    if not verify_p256(own, int.from_bytes(r, "big"), int.from_bytes(s, "big"), signed):
        refuse("a certificate not signed by its own key")
    head, middle = bytes.fromhex("30680424") + PEER_PREFIX[2:], bytes.fromhex("0440")
    if len(extension) != 106 or extension[:8] != head or extension[40:42] != middle:
        refuse("not the extension of an Ed25519 key")
    key = extension[8:40]
    if not verify(key, extension[42:], b"libp2p-tls-handshake:" + spki):
        refuse("a certificate whose key did not sign it")
    return {"key": key}


def _packet(data: bytes, given: Given) -> Field:
    if data[:2] != b"F\x01" or len(data) < 27:
        refuse("not a carousel packet")
    head = int.from_bytes(data[18:22], "big")
    out: Fields = {
        "origin": data[2:10],
        "number": int.from_bytes(data[10:18], "big"),
        "seq": head & 0x7FFFFFFF,
    }
    if head >> 31:
        descriptor, _ = open_envelope("generation", data[22:], cast("bytes", given["key"]))
        if (descriptor["origin"], descriptor["number"]) != (out["origin"], out["number"]):
            refuse("a descriptor of another generation than its packet's")
        return {**out, "descriptor": descriptor}
    return {**out, "block": data[22], "symbol_id": int.from_bytes(data[23:26], "big"), "symbol": data[26:]}


def join_symbols(descriptor: Fields, packets: Iterable[Fields]) -> bytes:
    """Return the bundle from its source symbols, which RaptorQ sends as they are (RFC 6330, systematic)."""
    size, length = cast("int", descriptor["symbol_bytes"]), cast("int", descriptor["length"])
    symbols: dict[int, bytes] = {}
    for packet in packets:
        symbol = cast("bytes", packet["symbol"])
        if packet["block"] == 0 and len(symbol) == size and packet["number"] == descriptor["number"]:
            symbols[cast("int", packet["symbol_id"])] = symbol
    count = -(-length // size)
    if not set(range(count)) <= set(symbols):
        refuse("source symbols are missing")
    bundle = b"".join(symbols[i] for i in range(count))[:length]
    if sha256(bundle) != descriptor["digest"]:
        refuse("not the bundle the descriptor names")
    return bundle


def _root(data: bytes, given: Given) -> Field:
    """Read ``x-farcast`` out of a TUF root.json that its own root role signed."""
    if "sha256" in given and sha256(data) != given["sha256"]:
        refuse("not the root the invite names")
    try:
        metadata = json.loads(data)
        signed, role = metadata["signed"], metadata["signed"]["roles"]["root"]
        message = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        good = {
            each["keyid"]
            for each in metadata["signatures"]
            if each["keyid"] in role["keyids"]
            and verify(
                bytes.fromhex(signed["keys"][each["keyid"]]["keyval"]["public"]),
                bytes.fromhex(each["sig"]),
                message,
            )
        }
        mine = signed["x-farcast"]
        out: Fields = {"name": mine["name"], "key": peer_key(mine["peer_id"]), "endpoints": mine["endpoints"]}
        for role_ in ("settlement", "intake"):
            out[role_] = [peer_key(name) for name in mine.get(role_, [])]
        if signed["_type"] != "root" or len(good) < max(1, role["threshold"]):
            refuse("not a root its own keys signed")
    except (ValueError, KeyError, TypeError, AttributeError):
        refuse("not a root.json")
    return out


def _peer(data: bytes, _: Given) -> Field:
    return {"key": peer_key(_utf8(data))}


def _cid(data: bytes, _: Given) -> Field:
    binary = cid_bytes(_utf8(data))
    codec, function, digest = cid_parts(binary)
    return {"cid": cid_text(binary), "codec": codec, "hash": function, "digest": digest}


def _block(data: bytes, given: Given) -> Field:
    binary = cid_bytes(cast("str", given["cid"]))
    check_block(binary, data)
    if cid_parts(binary)[0] != 0x70:
        return {"type": "raw", "data": data}
    node = read_node(data)
    node["type"] = {0: "file", 1: "directory", 2: "file", 4: "symlink", 5: "hamt"}[cast("int", node["type"])]
    return {name: node[name] for name in ("type", "data", "filesize", "blocksizes", "links")} | {
        "filesize": node["filesize"] or 0
    }


def _leaves(data: bytes, given: Given) -> Field:
    """Read ``leaves.bin``; ``given`` may hold the ``root`` its statement signs."""
    reader, lines, order = _Bytes(data), list[bytes](), list[tuple[Field, ...]]()
    while reader.at < len(data):
        lines.append(reader.take(int.from_bytes(reader.take(2), "big")))
        line = cast("Fields", LINE(unpack(lines[-1], 512)))
        order.append((line["platform"], line["payee"], line["month"]))
    if order != sorted(set(cast("list[tuple[bytes, str, str]]", order))):
        refuse("lines that are not sorted, each once")
    if "root" in given and merkle_root(lines) != given["root"]:
        refuse("lines of another root")
    return [LINE(unpack(line)) for line in lines]


def _tickets(data: bytes, given: Given) -> Field:
    """Read ``tickets.bin``."""
    del given
    names = [data[i : i + 16] for i in range(0, len(data), 18)]
    if len(data) % 18 or names != sorted(set(names)):
        refuse("not whole entries in order, each once")
    return [
        {"name": data[i : i + 16], "pulses": int.from_bytes(data[i + 16 : i + 18], "big")}
        for i in range(0, len(data), 18)
    ]


def _base64url(letters: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
    except ValueError:
        refuse("not base64url")
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != letters:
        refuse("base64url with bits left over")
    return data


def _ticket_proof(data: bytes, given: Given) -> Field:
    """Read what a page sends as ``authorization``, and check the MAC under the ticket key."""
    pattern = r"(?i:farcast-ticket) ([A-Za-z0-9_-]{1,1400})\.(0|[1-9][0-9]{0,15})\.([A-Za-z0-9_-]{43})"
    match = re.fullmatch(pattern, _utf8(data))
    if match is None:
        refuse("no proof of a ticket")
    ticket, mac = _base64url(match[1]), _base64url(match[3])
    said = f"farcast/key/v1\0{cast('bytes', given['key_id']).hex()}\0{match[2]}"
    if not hmac.compare_digest(mac, hmac.digest(cast("bytes", given["ticket_key"]), said.encode(), "sha256")):
        refuse("a MAC of another key, for another key, or of another time")
    return {"ticket": ticket, "at_ms": int(match[2]), "mac": mac}


def _sealed_file(data: bytes, given: Given) -> Field:
    """Open one file of a protected title; ``name`` is its path in the folder."""
    key, key_id = cast("bytes", given["key"]), cast("bytes", given["key_id"])
    iv = sha256(b"farcast/iv/v1\0", key_id, cast("str", given["name"]).encode())[:16]
    return {"iv": iv, "clear": open_cbc(key, iv, data)}


OTHER: dict[str, Callable[[bytes, Given], Field]] = {
    "ticket": _ticket,
    "pulse": _pulse,
    "told": _told,
    "directory": _directory,
    "checkpoint": _checkpoint,
    "compact-checkpoint": _compact,
    "inclusion": _inclusion,
    "consistency": _consistency,
    "car": _car,
    "cid": _cid,
    "block": _block,
    "peer-id": _peer,
    "invite": _invite,
    "certificate": _certificate,
    "packet": _packet,
    "leaves": _leaves,
    "tickets": _tickets,
    "root": _root,
    "ticket-proof": _ticket_proof,
    "sealed-file": _sealed_file,
}

KINDS = frozenset(OTHER) | frozenset(SIGNED) | frozenset(PLAIN)


def decode(kind: str, data: bytes, given: Given | None = None) -> Field:
    """Return the fields of a message.

    Raises:
        RefusedError: ``data`` is no message of that kind, or its signature is not the signer's.
    """
    given = given or {}
    if kind in OTHER:
        return OTHER[kind](data, given)
    if kind in SIGNED:
        return open_envelope(kind, data, cast("bytes | None", given.get("key")))[0]
    check, limit = PLAIN[kind]
    message = check(unpack(data, limit))
    if kind in EXTRA:
        EXTRA[kind](cast("Fields", message))
    return message


def plain(field: Field) -> object:
    """Return fields as JSON has them: bytes in hex."""
    if isinstance(field, bytes):
        return field.hex()
    if isinstance(field, list):
        return [plain(each) for each in field]
    if isinstance(field, dict):
        return {name: plain(each) for name, each in field.items()}
    return field
