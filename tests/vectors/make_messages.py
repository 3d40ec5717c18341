"""Make ``messages.json``: golden bytes of every message, and bytes that everybody must refuse.

Usage: ``python tests/vectors/make_messages.py``. Seeds and times are fixed, so it always writes the
same file; a change of the file is a change of the wire format. Over 400 lines because it is one long
list of samples.

``valid``: name, kind, ``bytes`` in hex (or ``text``, or how many ``zeros``), what a reader is ``given``
beside them, and the decoded ``fields`` by their names in ``docs/protocol.md``, bytes in hex.
``invalid``: the same with the ``reason`` for which Farcast refuses it. ``seeds`` are the Ed25519 seeds
behind the signatures.
"""

from __future__ import annotations

import json
import tempfile
from base64 import b32encode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from farcast.node.http.tls import EXTENSION_OID, SIGNED_PREFIX
from farcast.origin.repository import Repository
from farcast.protocol import batch as batches
from farcast.protocol import (
    contentkey,
    earnings,
    enrol,
    evidence,
    merkle,
    note,
    protection,
    pulse,
    statement,
    stick,
    symbols,
    timetable,
    unixfs,
)
from farcast.protocol import digest as digests
from farcast.protocol.beacon import Beacon, seal_beacon
from farcast.protocol.car import header, section
from farcast.protocol.catalog import Entry, Page
from farcast.protocol.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, SHA2_512, Cid
from farcast.protocol.codec import Message, decode, encode
from farcast.protocol.dagpb import Link
from farcast.protocol.dagpb import encode as encode_node
from farcast.protocol.directory import Directory, Endpoint, RelayRecord, seal_directory
from farcast.protocol.generation import Item, describe, origin_id, pack_bundle, pack_packet, seal_descriptor
from farcast.protocol.hint import HINT_LIMIT_BYTES, POST_LIMIT_BYTES, GossipPlace, Hint, HintPost
from farcast.protocol.identity import Identity, Kind, Signed, peer_id
from farcast.protocol.invite import Invite, format_invite
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Protection, Rendition, Track, Window
from farcast.protocol.note import Checkpoint
from farcast.protocol.presence import Presence, tell_presence
from farcast.protocol.radio import Waybill
from farcast.protocol.request import RequestProof
from farcast.protocol.rotation import open_rotation, seal_rotation
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import Holder, Ticket, TicketGrant, TicketOffice

FILE = Path(__file__).with_name("messages.json")
ROLES = ("publisher", "box", "catalog", "ticket", "intake", "settlement", "session", "relay", "lan", "device")
DAY = 20_700
T0 = DAY * 86_400_000 + 43_200_000

SMALL_ORDER = tuple(
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)
"""The eight points of small order of Ed25519."""
ORDER = 2**252 + 27742317777372353535851937790883648493
MIXED_KEY = bytes.fromhex("988b8b06afc3abd50c44e1396f4587342176485abb80721cfde8385f5e9320ce")
MIXED_SIG = bytes.fromhex(
    "f87a22889707d326b221b2dba4102625f99227c2febe06664c8d9409eb213e21"
    "6c0bae697d35219baba7bbd51fab3ce3ca2bbbd5e5b04d0fb1adec14f2ed0f0a"
)
"""A key aB + T, with T of order 8, and its signature of the receipt of nothing at 1970: it holds with
the cofactor and not without."""
M = TypeVar("M", bound=msgspec.Struct)
Changes = dict[str, dict[str, object]]
Rulings = tuple[tuple[str, dict[str, object], str], ...]
Action = Literal["publish", "supersede", "retire", "deny"]


def digest(text: str) -> bytes:
    """Return 32 bytes that are as good as random and always the same."""
    return sha256(b"farcast vectors/" + text.encode()).digest()


WHO = {role: Identity(digest(role)) for role in ROLES}
CATALOG = f"farcast/{WHO['box'].peer_id}/catalog"
ORIGIN = origin_id(WHO["box"].key)


def plain(value: object) -> Any:  # noqa: ANN401 - what JSON can hold
    """Return a decoded value as JSON has it: messages as objects, bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Checkpoint | Invite):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[object]", value)]
    return value


class Book:
    """The vectors so far."""

    def __init__(self) -> None:
        self.valid: list[dict[str, Any]] = []
        self.invalid: list[dict[str, Any]] = []

    def good(self, name: str, kind: str, data: bytes | str | int, fields: object, /, **given: object) -> None:
        """Add bytes that everybody must read as ``fields``."""
        self.valid.append({**_head(name, kind, data, given), "fields": plain(fields)})

    def bad(self, name: str, kind: str, data: bytes | str | int, reason: str, /, **given: object) -> None:
        """Add bytes that everybody must refuse."""
        self.invalid.append({**_head(name, kind, data, given), "reason": reason})

    def signed(
        self,
        name: str,
        kind: Kind,
        signer: Identity,
        message: Message,
        extra: object = None,
        /,
        **given: object,
    ) -> bytes:
        """Add a signed message and the common ways to get one wrong."""
        data = signer.seal(kind, message)
        self.good(name, kind, data, {**plain(message), **plain(extra or {})}, **given)
        for how, spoilt, reason in _spoilt(kind, signer, encode(message)):
            self.bad(f"{name}: {how}", kind, spoilt, reason, **given)
        return data

    def unsigned(self, name: str, kind: str, message: Message) -> bytes:
        """Add a message nobody signs and the common ways to get one wrong."""
        data = encode(message)
        self.good(name, kind, data, message)
        for how, spoilt, reason in _misshapen(data):
            self.bad(f"{name}: {how}", kind, spoilt, reason)
        return data


def _head(name: str, kind: str, data: bytes | str | int, given: dict[str, object]) -> dict[str, Any]:
    content: dict[str, object] = {"bytes": data.hex()} if isinstance(data, bytes) else {"text": data}
    if isinstance(data, int):
        content = {"zeros": data}
    return {"name": name, "kind": kind, "given": plain(given), **content}


def _misshapen(body: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Yield ways to get any message wrong: how, its bytes, the reason."""
    fields: list[Any] = msgspec.msgpack.decode(body)
    width = 1 if body[0] < 0xA0 else 3
    yield "one element more", encode([*fields, 0]), "malformed"
    yield "one element less", encode(fields[:-1]), "malformed"
    if isinstance(fields[0], int):
        yield "an unknown version", encode([fields[0] + 1, *fields[1:]]), "malformed"
        yield (
            "an integer not in its shortest form",
            body[:width] + b"\xcc" + body[width : width + 1] + body[width + 1 :],
            "not_canonical",
        )
    else:
        long = b"\xc6" + len(fields[0]).to_bytes(4, "big")
        yield (
            "a length not in its shortest form",
            body[:width] + long + body[width:].removeprefix(encode(fields[0])[: -len(fields[0])]),
            "not_canonical",
        )
    yield "bytes after the end", body + b"\0", "malformed"
    yield "cut short", body[:-1], "malformed"
    yield "a map", encode({str(place): field for place, field in enumerate(fields)}), "malformed"


def _spoilt(kind: Kind, signer: Identity, body: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Yield ways to get a signed message wrong."""
    sig = signer.sign(kind, body)
    for how, misshapen, reason in _misshapen(body):
        yield how, encode(Signed(misshapen, signer.sign(kind, misshapen))), reason
    domain: Kind = "receipt" if kind == "rotation" else "rotation"
    yield "signed in another domain", encode(Signed(body, signer.sign(domain, body))), "bad_signature"
    yield "signed with no domain", encode(Signed(body, signer.sign_raw(body))), "bad_signature"
    other = Identity(digest("stranger"))
    yield "signed by a stranger", encode(Signed(body, other.sign(kind, body))), "bad_signature"
    yield "a bit of the signature flipped", encode(Signed(body, _flip(sig, 5))), "bad_signature"
    yield "a signature of 63 bytes", encode(Signed(body, sig[:63])), "bad_signature"
    large = int.from_bytes(sig[32:], "little") + ORDER
    malleable = sig[:32] + large.to_bytes(32, "little")
    yield "S beyond the group order", encode(Signed(body, malleable)), "bad_signature"
    envelope = encode(Signed(body, sig))
    yield "an envelope of three", encode([body, sig, b""]), "malformed"
    yield "an envelope not in its shortest form", b"\xdc\0\x02" + envelope[1:], "not_canonical"
    yield "bytes after the envelope", envelope + b"\0", "malformed"
    yield "no envelope", body, "malformed"


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def _with(message: M, **changes: object) -> M:
    return msgspec.structs.replace(message, **changes)


# --- names and content


def _names(book: Book) -> None:
    for role in ("publisher", "box", "relay"):
        book.good(f"peer id of {role}", "peer-id", WHO[role].peer_id, {"key": WHO[role].key})
    name = WHO["box"].peer_id
    for how, text in {
        "a letter of no base58": f"{name[:-1]}0",
        "cut short": name[:-1],
        "one letter more": f"{name}1",
        "a leading one more": f"1{name}",
        "of no Ed25519 key": "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
    }.items():
        book.bad(f"peer id: {how}", "peer-id", text, "malformed")
    cids = {
        "raw": Cid.of(RAW, b"farcast"),
        "dag-pb": Cid.of(DAG_PB, b"\n\x02\x08\x01"),
        "dag-cbor": Cid.of(DAG_CBOR, b"\xa0"),
        "identity": Cid(RAW, b"farcast", IDENTITY),
        "sha2-512": Cid(RAW, digest("a") + digest("b"), SHA2_512),
        "unknown codec": Cid(0x0202, digest("c")),
    }
    for how, cid in cids.items():
        book.good(f"CID {how}", "cid", str(cid), _cid_fields(cid))
    pb = cids["dag-pb"]
    book.good("CID of version 0", "cid", "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", _cid_fields(pb))
    book.good("CID in base16", "cid", f"f{cids['raw'].encode().hex()}", _cid_fields(cids["raw"]))
    text = str(cids["raw"])
    for how, spoilt in {
        "in capitals": text.upper(),
        "with bits left over": f"{text[:-1]}{'b' if text[-1] == 'a' else chr(ord(text[-1]) + 1)}",
        "padded": f"{text}===",
        "of another base": f"u{text[1:]}",
        "of version 2": _b32(b"\x02" + cids["raw"].encode()[1:]),
        "of a short digest": _b32(b"\x01\x55\x12\x1f" + bytes(31)),
        "with bytes after it": _b32(cids["raw"].encode() + b"\0"),
        "with a varint not minimal": _b32(b"\x01\xd5\0\x12\x20" + bytes(32)),
        "of 129 identity bytes": _b32(b"\x01\x55\0\x81\x01" + bytes(129)),
        "of nothing": "",
    }.items():
        book.bad(f"CID {how}", "cid", spoilt, "malformed")


def _b32(data: bytes) -> str:
    return "b" + b32encode(data).decode().lower().rstrip("=")


def _cid_fields(cid: Cid) -> dict[str, object]:
    return {"cid": str(cid), "codec": cid.codec, "hash": cid.hash_code, "digest": cid.digest}


def _content(book: Book) -> None:
    data = bytes(place * 7 % 251 for place in range(1_100))
    writer = unixfs.FileWriter(chunk_bytes=256, width=4)
    blocks = writer.push(data)
    last, film = writer.finish()
    leaf = unixfs.Entry(Cid.of(RAW, b"#EXTM3U\n"), 8, 8)
    root, folder, _ = unixfs.directory({"seg 1.m4s": film, "master.m3u8": leaf, "\u00e9.txt": leaf})
    blocks += [*last, (leaf.cid, b"#EXTM3U\n"), (root, folder)]
    for cid, block in blocks:
        if cid.codec == DAG_PB:
            book.good(f"block {cid}", "block", block, _node_fields(cid, block), cid=str(cid))
    book.bad("block of another CID", "block", b"#EXTM3U \n", "hash_mismatch", cid=str(leaf.cid))
    old = Link("", Cid.of(RAW, b"x"), 1)
    link = b"\x12\x2a" + encode_node([old], b"")[2:44]
    folder_data = b"\n\x02\x08\x01"
    for how, block in {
        "without data": link,
        "data between links": link + folder_data + link,
        "data twice": folder_data + folder_data,
        "an unknown field": folder_data + b"\x1a\0",
        "a link without a CID": b"\x12\x02\x18\x01" + folder_data,
        "sizes that do not add up": link + b"\n\x06\x08\x02\x18\x02\x20\x01",
        "more links than sizes": link + b"\n\x04\x08\x02\x18\x01",
        "an unknown type": b"\n\x02\x08\x07",
        "a name no path reaches": encode_node([Link("a/b", old.cid, 1)], b"\x08\x01"),
        "a shard of fanout 7": b"\n\x06\x08\x05\x28\x22\x30\x07",
    }.items():
        book.bad(f"dag-pb {how}", "block", block, "malformed", cid=str(Cid.of(DAG_PB, block)))
    car = header([root]) + b"".join(section(cid, block) for cid, block in blocks)
    fields = {
        "roots": [str(root)],
        "blocks": [{"cid": str(cid), "data": block} for cid, block in blocks],
    }
    book.good("CAR", "car", car, fields)
    book.good("CAR of no block", "car", header([root]), {"roots": [str(root)], "blocks": []})
    book.bad("CAR with a bit flipped", "car", _flip(car, len(car) - 1), "hash_mismatch")
    book.bad("CAR cut short", "car", car[:-1], "truncated")
    book.bad("CAR of nothing", "car", b"", "truncated")
    book.bad("CAR of version 2", "car", car.replace(b"version\x01", b"version\x02"), "malformed")
    book.bad("CAR with an empty section", "car", car + b"\0", "malformed")


def _node_fields(cid: Cid, block: bytes) -> dict[str, object]:
    node = unixfs.parse(cid, block)
    links = [{"cid": str(link.cid), "name": link.name, "tsize": link.tsize} for link in node.links]
    return {
        "type": node.kind,
        "data": node.data,
        "filesize": node.filesize,
        "blocksizes": node.blocksizes,
        "links": links,
    }


def manifests() -> tuple[Manifest, Manifest]:
    """Return the open sample and the one that needs a ticket."""
    video = Rendition(
        "720p", "video", "720p/index.m3u8", "avc1.64001f", 2_800_000, 2_400_000, 1_280, 720, 25_000, "", 12,
        14_400_000,
    )  # fmt: skip
    audio = Rendition(
        "audio-de", "audio", "audio-de/index.m3u8", "mp4a.40.2", 130_000, 128_000, 0, 0, 0, "de", 12, 768_000
    )
    first = Manifest(
        1, "sea-film", 1, WHO["publisher"].key, "Das Meer \u2014 ein Film", "Wellen.\nUnd Wind.", "de",
        48_000, Cid.of(DAG_PB, b"folder").encode(), 15_168_000, [video, audio],
        [Track("poster", "poster.jpg", "", ""), Track("subtitles", "subs-en.vtt", "en", "English")],
        Window(0, 0), [], [Payee("a.nna", 6_000), Payee("studio-b", 4_000)], "open", None, T0, b"",
    )  # fmt: skip
    second = _with(
        first,
        title="9",
        version=2**32 - 1,
        description="",
        tracks=[],
        window=Window(T0, T0 + 2**40),
        territories=["DE", "AT"],
        payees=[Payee("solo", 10_000)],
        access="ticket",
        protection=Protection("aes-128", [digest("key id")[:16]]),
        supersedes=Cid.of(RAW, b"first").encode(),
    )
    return first, second


def _manifests(book: Book) -> None:
    first, second = manifests()
    publisher = WHO["publisher"]
    book.signed("manifest, open", "manifest", publisher, first)
    book.signed("manifest, ticket and protection", "manifest", publisher, second)
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "shares of 9,999": ({"payees": [Payee("a", 9_999)]}, "bad_manifest"),
        "a payee twice": ({"payees": [Payee("a", 5_000), Payee("a", 5_000)]}, "bad_manifest"),
        "a share of nothing": ({"payees": [Payee("a", 10_000), Payee("b", 0)]}, "malformed"),
        "nobody to pay": ({"payees": []}, "malformed"),
        "a ticket title in the clear": ({"access": "ticket"}, "bad_manifest"),
        "a ticket title of two keys": (
            {"access": "ticket", "protection": Protection("aes-128", [bytes(16), bytes(16)])},
            "bad_manifest",
        ),
        "open and encrypted": ({"protection": Protection("aes-128", [])}, "bad_manifest"),
        "version 0": ({"version": 0}, "malformed"),
        "a title in capitals": ({"title": "Film"}, "malformed"),
        "a title with a newline": ({"title": "film\n"}, "malformed"),
        "a title of 64 letters": ({"title": "a" * 64}, "malformed"),
        "a payee with a newline": ({"payees": [Payee("a\n", 10_000)]}, "malformed"),
        "a name of 401 letters": ({"name": "\u00e9" * 401}, "malformed"),
        "a description of 4,001 letters": ({"description": "x" * 4_001}, "malformed"),
        "a territory in small letters": ({"territories": ["de"]}, "malformed"),
        "a territory with a newline": ({"territories": ["DE\n"]}, "malformed"),
        "a root that is no CID": ({"root": b"\x01\x55\x12\x20"}, "malformed"),
        "a root of CID version 0": ({"root": b"\x12\x20" + bytes(32)}, "malformed"),
        "a duration beyond 2^53": ({"duration_ms": 2**53}, "malformed"),
        "a negative size": ({"size_bytes": -1}, "malformed"),
        "another access": ({"access": "free"}, "malformed"),
        "a key of 31 bytes": ({"publisher": bytes(31)}, "malformed"),
        "text instead of bytes": ({"root": "bafy"}, "malformed"),
        "65 tracks": ({"tracks": [first.tracks[0]] * 65}, "malformed"),
    }
    for how, (change, reason) in changes.items():
        body = encode(_with(first, **change))
        data = encode(Signed(body, publisher.sign("manifest", body)))
        book.bad(f"manifest: {how}", "manifest", data, reason)
    broken = encode(first).replace("\u2014".encode(), b"\xff\xfe\xfd")
    data = encode(Signed(broken, publisher.sign("manifest", broken)))
    book.bad("manifest: text that is not UTF-8", "manifest", data, "malformed")
    book.bad("manifest: too large", "manifest", 262_145, "too_large")


# --- the catalog


def _catalog(book: Book) -> None:
    cid = Cid.of(RAW, b"manifest").encode()
    actions: tuple[tuple[Action, str], ...] = (
        ("publish", "sea-film"),
        ("supersede", "sea-film"),
        ("publish", "9"),
        ("retire", "9"),
        ("deny", "sea-film"),
        ("publish", "a"),
        ("publish", "b"),
    )
    entries = [
        encode(Entry(1, action, title, cid, T0 + place)) for place, (action, title) in enumerate(actions)
    ]
    first = Entry(1, "publish", "sea-film", cid, T0)
    book.unsigned("entry", "entry", first)
    for how, data, reason in (
        ("an unknown action", encode([1, "delete", "a", cid, T0]), "malformed"),
        ("a manifest that is no CID", encode([1, "deny", "a", cid[:-1], T0]), "malformed"),
        ("a title with a newline", encode([1, "publish", "a\n", cid, T0]), "malformed"),
        ("a time before 1970", encode([1, "publish", "a", cid, -1]), "malformed"),
        ("513 bytes", 513, "too_large"),
    ):
        book.bad(f"entry: {how}", "entry", data, reason)
    book.unsigned("page", "page", Page(1, 0, entries))
    tree = merkle.Tree(merkle.leaf_hash(entry) for entry in entries)
    head = Checkpoint(CATALOG, tree.size, tree.root(), T0)
    catalog = WHO["catalog"]
    data = note.seal(head, CATALOG, catalog)
    given = {"name": CATALOG, "key": catalog.key}
    book.good("checkpoint", "checkpoint", data.decode(), head, **given)
    empty = Checkpoint(CATALOG, 0, merkle.EMPTY_ROOT, 0)
    book.good(
        "checkpoint of nothing", "checkpoint", note.seal(empty, CATALOG, catalog).decode(), empty, **given
    )
    cosigned = data + f"\u2014 witness.example {b64encode(bytes(68)).decode()}\n".encode()
    book.good("checkpoint with a cosignature", "checkpoint", cosigned.decode(), head, **given)
    compact = note.compact(data, CATALOG, catalog.key)
    book.good("compact checkpoint", "compact-checkpoint", compact, head, **given)
    _bad_notes(book, data.decode(), compact, given)
    for size, index in ((1, 0), (2, 1), (3, 2), (5, 4), (7, 0), (7, 3), (7, 6)):
        proof = tree.inclusion_proof(index, size)
        where = {"leaf": entries[index], "index": index, "size": size, "root": tree.root(size)}
        book.good(f"inclusion of {index} in {size}", "inclusion", encode(proof), {"proof": proof}, **where)
        if proof:
            book.bad(
                f"inclusion of {index} in {size}, cut", "inclusion", encode(proof[:-1]), "bad_proof", **where
            )
        longer = encode([*proof, bytes(32)])
        book.bad(f"inclusion of {index} in {size}, longer", "inclusion", longer, "bad_proof", **where)
        elsewhere = {**where, "index": (index + 1) % (size + 1)}
        book.bad(
            f"inclusion of {index} in {size}, moved", "inclusion", encode(proof), "bad_proof", **elsewhere
        )
    for old, new in ((0, 7), (1, 2), (2, 3), (3, 7), (4, 7), (6, 7), (7, 7)):
        proof = tree.consistency_proof(old, new)
        where = {"old_size": old, "old_root": tree.root(old), "size": new, "root": tree.root(new)}
        name = f"consistency of {old} and {new}"
        book.good(name, "consistency", encode(proof), {"proof": proof}, **where)
        book.bad(f"{name}, longer", "consistency", encode([*proof, bytes(32)]), "bad_proof", **where)
        wrong = {**where, "old_root": digest("root")}
        book.bad(f"{name}, another old root", "consistency", encode(proof), "bad_proof", **wrong)


def _bad_notes(book: Book, text: str, compact: bytes, given: dict[str, Any]) -> None:
    catalog = WHO["catalog"]
    body = text.split("\n\n", maxsplit=1)[0] + "\n"

    def signed(other: str) -> str:
        sig = note.key_id(CATALOG, catalog.key) + catalog.sign_raw(other.encode())
        return f"{other}\n\u2014 {CATALOG} {b64encode(sig).decode()}\n"

    other = CATALOG.replace("catalog", "other")
    for how, spoilt, reason in (
        ("another size", text.replace("\n7\n", "\n8\n"), "bad_signature"),
        ("no signature", body + "\n", "malformed"),
        ("no empty line", text.replace("\n\n", "\n"), "malformed"),
        ("a hyphen for the dash", text.replace("\u2014", "-"), "malformed"),
        ("a size with a leading zero", signed(body.replace("\n7\n", "\n07\n")), "malformed"),
        ("a size of 2^63", signed(body.replace("\n7\n", f"\n{2**63}\n")), "malformed"),
        ("no time", signed(body.rsplit("time", 1)[0]), "malformed"),
        ("an extension line", signed(body + "more\n"), "malformed"),
        ("another origin", signed(body.replace(CATALOG, other)), "wrong_origin"),
        (
            "a root of 31 bytes",
            signed(body.replace(body.split("\n")[2], b64encode(bytes(31)).decode())),
            "malformed",
        ),
        ("a carriage return", text.replace("\n", "\r\n"), "malformed"),
        ("no newline at the end", text[:-1], "malformed"),
        (
            "only a cosignature",
            f"{body}\n\u2014 witness.example {b64encode(bytes(68)).decode()}\n",
            "bad_signature",
        ),
    ):
        book.bad(f"checkpoint: {how}", "checkpoint", spoilt, reason, **given)
    stranger = {**given, "key": WHO["box"].key}
    book.bad("checkpoint: of another key", "checkpoint", text, "bad_signature", **stranger)
    for how, data, reason in (
        ("version 2", b"\x02" + compact[1:], "malformed"),
        ("116 bytes", compact[:-1], "malformed"),
        ("118 bytes", compact + b"\0", "malformed"),
        ("a size of 2^63", compact[:1] + b"\x80" + compact[2:], "malformed"),
        ("another time", _flip(compact, 48), "bad_signature"),
        ("another key id", _flip(compact, 49), "bad_signature"),
    ):
        book.bad(f"compact checkpoint: {how}", "compact-checkpoint", data, reason, **given)


# --- trust, relays, enrolment


def keyring() -> Keyring:
    """Return the sample keyring."""
    keys = {role: [WHO[role].key] for role in ("catalog", "ticket", "intake", "settlement")}
    endpoints = [Endpoint("origin.example", 443, True), Endpoint("2001:db8::1", 4433, False)]
    publishers = [WHO["publisher"].key, digest("former publisher")]
    cdn = ["https://cdn.example/pull/"]
    return Keyring(
        v=1, name="Farcast \u00fcberall", box=WHO["box"].key, publishers=publishers, endpoints=endpoints,
        cdn=cdn, **keys,
    )  # fmt: skip


def _trust(book: Book) -> None:
    ring = keyring()
    book.unsigned("keyring", "keyring", ring)
    changes: Changes = {
        "no catalog key": {"catalog": []},
        "17 intake keys": {"intake": [bytes(32)] * 17},
        "a key of 33 bytes": {"box": bytes(33)},
        "port 0": {"endpoints": [Endpoint("a", 0, False)]},
        "port 65536": {"endpoints": [Endpoint("a", 65_536, False)]},
        "an endpoint without a host": {"endpoints": [Endpoint("", 1, False)]},
        "17 endpoints": {"endpoints": [Endpoint("a", 1, False)] * 17},
        "a number for a boolean": {"endpoints": [["a", 1, 0]]},
    }
    for how, change in changes.items():
        book.bad(f"keyring: {how}", "keyring", encode(_with(ring, **change)), "malformed")
    book.bad("keyring: too large", "keyring", 65_537, "too_large")
    with tempfile.TemporaryDirectory() as folder:
        seeds = {role: digest(f"tuf {role}") for role in ("timestamp", "snapshot", "targets")}
        repository = Repository.create(
            Path(folder) / "tuf", ring, root=digest("tuf root"), seeds=seeds, now=T0 / 1000
        )
        root = repository.root_bytes
    label = {
        "name": ring.name,
        "key": ring.box,
        "endpoints": ["[2001:db8::1]:4433"],  # web endpoints are not dialled by key
        "settlement": ring.settlement,
        "intake": ring.intake,
    }
    text = root.decode()
    name = {"sha256": sha256(root).digest()}
    book.good("root.json", "root", text, label, **name)
    book.bad("root.json: another hash", "root", text, "wrong_root", sha256=bytes(32))
    renamed = text.replace("[2001:db8::1]", "[2001:db8::2]")
    book.bad("root.json: changed", "root", renamed, "bad_root", sha256=sha256(renamed.encode()).digest())
    _certificate(book)
    _invites(book)


def _certificate(book: Book) -> None:
    private = ec.derive_private_key(int.from_bytes(digest("P-256"), "big"), ec.SECP256R1())
    box = WHO["box"]
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def certificate(extension: bytes, signer: ec.EllipticCurvePrivateKey = private) -> bytes:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, box.peer_id)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(7)
            .not_valid_before(datetime.fromtimestamp(T0 // 1000 - 3_600, UTC))
            .not_valid_after(datetime.fromtimestamp(T0 // 1000 + 3_600, UTC))
            .add_extension(x509.UnrecognizedExtension(EXTENSION_OID, extension), critical=False)
        )
        return builder.sign(signer, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)

    head = b"\x30\x68\x04\x24\x08\x01\x12\x20" + box.key + b"\x04\x40"
    extension = head + box.sign_raw(SIGNED_PREFIX + spki)
    data = certificate(extension)
    book.good("certificate", "certificate", data, {"key": box.key})
    other = ec.derive_private_key(int.from_bytes(digest("P-256, another"), "big"), ec.SECP256R1())
    for how, spoilt, reason in (
        ("not vouched for", certificate(head + box.sign_raw(SIGNED_PREFIX)), "wrong_key"),
        ("signed by another key", certificate(extension, other), "wrong_key"),
        ("bytes after the extension", certificate(extension + b"\0"), "malformed"),
        (
            "another kind of key",
            certificate(extension.replace(b"\x08\x01\x12\x20", b"\x08\x02\x12\x20")),
            "malformed",
        ),
        ("cut short", data[:-1], "malformed"),
    ):
        book.bad(f"certificate: {how}", "certificate", spoilt, reason)


def _invites(book: Book) -> None:
    root = digest("root.json").hex()
    for name, invite in {
        "invite of a viewer": Invite("origin.example", 4433, root, "abcDEF0123456789_-", "viewer"),
        "invite of a relay, IPv6": Invite("2001:db8::1", 1, root, "r" * 64, "relay"),
        "invite without a token": Invite("192.0.2.7", 65_535, root, "", "viewer"),
    }.items():
        book.good(name, "invite", format_invite(invite), invite)
    bare = f"farcast://Origin.example:4433/join?root={root}"
    book.good("invite of a root alone", "invite", bare, Invite("origin.example", 4433, root, "", "viewer"))
    for how, text in {
        "of another scheme": bare.replace("farcast", "https"),
        "without a port": bare.replace(":4433", ""),
        "of port 0": bare.replace(":4433", ":0"),
        "of port 65536": bare.replace(":4433", ":65536"),
        "to another path": bare.replace("/join", "/enter"),
        "of a short root": bare[:-1],
        "of a root in capitals": f"farcast://a:1/join?root={root.upper()}",
        "with a root twice": f"{bare}&root={root}",
        "with an unknown part": f"{bare}&more=1",
        "with a short token": f"{bare}&token=abc",
        "of an unknown kind": f"{bare}&kind=origin",
        "with a user": bare.replace("//", "//user@"),
        "with a fragment": f"{bare}#x",
        "without a root": "farcast://a:1/join?kind=viewer",
        "of 1,025 characters": f"{bare}&token={'a' * 1_024}",
    }.items():
        book.bad(f"invite {how}", "invite", text, "bad_invite")


def _relays(book: Book) -> None:
    relay = WHO["relay"]
    endpoint = Endpoint("relay.example", 4433, False)
    record = RelayRecord(1, relay.key, [endpoint], "a.nna", T0, T0 + 86_400_000)
    envelope = book.signed("record", "record", relay, record)
    changes: Changes = {
        "no endpoint": {"endpoints": []},
        "nine endpoints": {"endpoints": [endpoint] * 9},
        "a host of 254 letters": {"endpoints": [Endpoint("a" * 254, 1, False)]},
        "a payee in capitals": {"payee": "Anna"},
        "a payee with a newline": {"payee": "anna\n"},
    }
    for how, change in changes.items():
        book.bad(f"record: {how}", "record", relay.seal("record", _with(record, **change)), "malformed")
    heir = WHO["device"]
    rotation = open_rotation(seal_rotation(relay.key, relay, heir, T0))
    book.signed("rotation", "rotation", heir, rotation)
    for how, alone, reason in (
        ("by the old key alone", relay.seal("rotation", rotation), "bad_signature"),
        ("by the new key alone", heir.seal("rotation", _with(rotation, consent=bytes(64))), "bad_signature"),
        ("at another time", heir.seal("rotation", _with(rotation, at_ms=T0 + 1)), "bad_signature"),
        ("half a consent", heir.seal("rotation", _with(rotation, consent=bytes(32))), "malformed"),
    ):
        book.bad(f"rotation: {how}", "rotation", alone, reason)
    catalog = WHO["catalog"]
    directory = Directory(1, T0, T0 + 3_600_000, [envelope, _flip(envelope, 30), b"", envelope[:-1]])
    book.signed("directory", "directory", catalog, directory, {"good": [record]}, key=catalog.key)
    nobody = Directory(1, T0, T0, [])
    data = seal_directory(nobody, catalog)
    book.good("directory of nobody", "directory", data, {**plain(nobody), "good": []}, key=catalog.key)
    _enrolment(book, envelope)


def _enrolment(book: Book, record: bytes) -> None:
    device = WHO["device"]
    token = "abcDEF0123456789_-"
    body = book.unsigned("device request", "device-request", enrol.DeviceRequest(1, token, device.key))
    for how, text in {
        "short": "a" * 15,
        "long": "a" * 65,
        "with a newline": f"{token}\n",
        "with a dot": f"{token}.",
    }.items():
        book.bad(
            f"device request: a token {how}", "device-request", encode([1, text, device.key]), "malformed"
        )
    book.unsigned("device answer", "device-answer", enrol.DeviceAnswer(1, 65_535))
    book.bad("device answer: 65536", "device-answer", encode([1, 65_536]), "malformed")
    wishes = [enrol.TicketWish(DAY + ahead, digest(f"session {ahead}")) for ahead in range(15)]
    book.unsigned("ticket request", "ticket-request", enrol.TicketRequest(1, wishes))
    book.bad("ticket request: no wish", "ticket-request", encode([1, list[object]()]), "malformed")
    book.bad("ticket request: 16 wishes", "ticket-request", encode([1, [*wishes, wishes[0]]]), "malformed")
    book.unsigned("ticket answer", "ticket-answer", enrol.TicketAnswer(1, [grant()]))
    book.bad("ticket answer: a short key", "ticket-answer", encode([1, [[b"", bytes(31)]]]), "malformed")
    for wish in ("listed", "unlisted", "paused", "left"):
        request = enrol.RelayRequest(2, token if wish == "listed" else "", record, wish)
        book.unsigned(f"relay request: {wish}", "relay-request", request)
    book.bad("relay request of version 1", "relay-request", encode([1, "", record]), "malformed")
    book.bad("relay request: another wish", "relay-request", encode([2, "", record, "gone"]), "malformed")
    long = encode([2, "", bytes(4_097), "listed"])
    book.bad("relay request: a record of 4,097 bytes", "relay-request", long, "malformed")
    book.unsigned("relay answer", "relay-answer", enrol.RelayAnswer(2, "approved", "", True, []))
    faults = [
        enrol.Fault("relay.example:4433", "udp", "does not answer by QUIC"),
        enrol.Fault("[2001:db8::1]:4433", "both", ""),
    ]
    answer = enrol.RelayAnswer(2, "refused", "no free places", False, faults)
    book.unsigned("relay answer with a reason and faults", "relay-answer", answer)
    wrong: dict[str, list[Any]] = {
        "of version 1": [1, "approved"],
        "another standing": [2, "maybe", "", True, []],
        "a reason of 401 letters": [2, "refused", "a" * 401, False, []],
        "a fault of nothing": [2, "approved", "", True, [["a:1", "none", ""]]],
        "nine faults": [2, "approved", "", True, [["a:1", "both", ""]] * 9],
    }
    for how, fields in wrong.items():
        book.bad(f"relay answer: {how}", "relay-answer", encode(fields), "malformed")
    check = enrol.CheckRequest(1, WHO["relay"].key, 4433, b"\0" * 5)
    book.unsigned("check request", "check-request", check)
    book.bad("check request: port 0", "check-request", encode([1, check.key, 0, b""]), "malformed")
    seen = enrol.CheckAnswer(1, "192.0.2.7", "", "UDP: no answer within 4 s", T0, 1_500, b"\0" * 5)
    book.unsigned("check answer", "check-answer", seen)
    book.bad(
        "check answer: a long address", "check-answer", encode([1, "a" * 65, "", "", T0, 0, b""]), "malformed"
    )
    book.bad("relay request: too large", "relay-request", 16_385, "too_large")
    proof = RequestProof(
        1,
        "POST",
        "/v1/devices?x=1",
        digest("nonce")[:24],
        sha256(body).digest(),
        device.key,
        WHO["box"].key,
        T0,
    )
    book.signed("request", "request", device, proof)
    book.signed("request to whom it may concern", "request", device, _with(proof, audience=b""))
    changes: Changes = {
        "no nonce": {"nonce": b""},
        "a nonce of 65 bytes": {"nonce": bytes(65)},
        "an audience of 33 bytes": {"audience": bytes(33)},
        "a path of 2,049 letters": {"path": "/" * 2_049},
        "a method of 17 letters": {"method": "A" * 17},
    }
    for how, change in changes.items():
        data = device.seal("request", _with(proof, **change))
        book.bad(f"request: {how}", "request", data, "malformed")


# --- viewing


def grant() -> TicketGrant:
    """Issue the sample ticket."""
    office = TicketOffice(WHO["ticket"], digest("ticket secret"))
    return office.issue(digest("tid")[:16], DAY, WHO["session"].key, Holder(digest("account")[:16], 3))


def viewings() -> list[pulse.Viewing]:
    """Return what the three sample pulses say."""
    manifest = Cid.of(RAW, b"manifest").digest
    beacon, tid = digest("beacon"), digest("tid")[:16]
    served = [
        pulse.Served(1, b"", 2_400),
        pulse.Served(2, WHO["relay"].key[:16], 2**32 - 1),
        pulse.Served(3, WHO["lan"].key[:16], 0),
        pulse.Served(4, b"", 17),
    ]
    return [
        pulse.Viewing(pulse.START, manifest, 0, 0, [], bytes(16)),
        pulse.Viewing(pulse.ACTIVE, manifest, 59_040, 1, served, pulse.witness(beacon, tid, 2, b"a block")),
        pulse.Viewing(pulse.RETURN, manifest, 2**32 - 1, 255, served[:1], bytes(16)),
    ]


def pulses() -> list[bytes]:
    """Sign the sample chain of three pulses: start, active, return."""
    signer = pulse.PulseSigner(grant().ticket, grant().key, WHO["session"])
    times = ((0, 0), (60_000, 59_040), (660_000, 0))
    number = T0 // 3_600_000
    return [
        signer.sign(T0 + at, delta, number, viewing)
        for (at, delta), viewing in zip(times, viewings(), strict=True)
    ]


def _viewing(book: Book) -> None:
    secret = digest("ticket secret")
    office, signer = TicketOffice(WHO["ticket"], secret), WHO["ticket"]
    issued = grant()
    ticket = msgspec.msgpack.decode(msgspec.msgpack.decode(issued.ticket)[0], type=Ticket)
    holder = office.holder(ticket)
    opened = {"opened": holder, "ticket_key": issued.key}
    book.signed("ticket", "ticket", signer, ticket, opened, key=signer.key, secret=secret)
    rules: Rulings = (
        ("day 65536", {"day": 65_536}, "malformed"),
        ("65 sealed bytes", {"sealed": bytes(65)}, "malformed"),
        ("a tid of 15 bytes", {"tid": bytes(15)}, "malformed"),
        ("sealed for somebody else", {"sealed": _flip(ticket.sealed, 0)}, "bad_seal"),
        ("another tid", {"tid": digest("other")[:16]}, "bad_seal"),
        ("nothing sealed", {"sealed": b""}, "bad_seal"),
    )
    for how, change, reason in rules:
        data = signer.seal("ticket", _with(ticket, **change))
        book.bad(f"ticket: {how}", "ticket", data, reason, key=signer.key, secret=secret)
    book.bad("ticket: too large", "ticket", 1_025, "too_large", key=signer.key)
    given = {
        "key": ticket.session,
        "ticket": issued.ticket,
        "ticket_signer": signer.key,
        "ticket_key": issued.key,
    }
    for name, data, viewing in zip(("start", "active", "return"), pulses(), viewings(), strict=True):
        said, _ = pulse.read_pulse(data)
        book.signed(f"pulse, {name}", "pulse", WHO["session"], said, {"viewing": viewing}, **given)
        body = encode(viewing)
        book.good(f"viewing, {name}", "viewing", body, viewing)
    _bad_viewings(book, viewings()[1])
    _bad_pulses(book, pulses()[1], given)
    beacon = Beacon(1, T0 // 3_600_000, digest("beacon"), T0)
    catalog = WHO["catalog"]
    book.signed("beacon", "beacon", catalog, beacon, key=catalog.key)
    assert seal_beacon(T0, beacon.value, catalog) == catalog.seal("beacon", beacon)
    book.bad("beacon: 513 bytes", "beacon", 513, "too_large", key=catalog.key)
    data = catalog.seal("beacon", _with(beacon, number=2**32))
    book.bad("beacon: number 2^32", "beacon", data, "malformed", key=catalog.key)


def _bad_viewings(book: Book, viewing: pulse.Viewing) -> None:
    changes: Changes = {
        "state 0": {"state": 0},
        "state 5": {"state": 5},
        "rendition 256": {"rendition": 256},
        "a position of 2^32": {"position_ms": 2**32},
        "five sources": {"served": [*viewing.served, viewing.served[0]]},
        "tier 5": {"served": [pulse.Served(5, b"", 1)]},
        "a source of 17 bytes": {"served": [pulse.Served(2, bytes(17), 1)]},
        "a witness of 15 bytes": {"witness": bytes(15)},
    }
    for how, change in changes.items():
        book.bad(f"viewing: {how}", "viewing", encode(_with(viewing, **change)), "malformed")
    data = encode(viewing)
    book.bad(
        "viewing: an integer not in its shortest form", "viewing", b"\x96\xcc" + data[1:], "not_canonical"
    )


def _bad_pulses(book: Book, data: bytes, given: dict[str, Any]) -> None:
    session, key = WHO["session"], given["ticket_key"]
    good, _ = pulse.read_pulse(data)

    def boxed(plain_box: bytes) -> bytes:
        clear = [getattr(good, name) for name in good.__struct_fields__[:-1]]
        box = ChaCha20Poly1305(key).encrypt(good.seq.to_bytes(12, "big"), plain_box, encode(clear))
        return session.seal("pulse", _with(good, box=box))

    rules: Rulings = (
        ("seq 0", {"seq": 0}, "malformed"),
        ("seq 2001", {"seq": 2_001}, "malformed"),
        ("121,001 ms since the last", {"delta_ms": 121_001}, "malformed"),
        ("2^32 ms in all", {"cum_ms": 2**32}, "malformed"),
        ("a box of 191 bytes", {"box": good.box[:-1]}, "malformed"),
        ("another box", {"box": _flip(good.box, 0)}, "bad_box"),
        ("a box of another seq", {"seq": 3}, "bad_box"),
        ("a box of another time", {"at_ms": good.at_ms + 1}, "bad_box"),
        ("of another ticket", {"tid": digest("other")[:16]}, "wrong_ticket"),
    )
    for how, change, reason in rules:
        book.bad(f"pulse: {how}", "pulse", session.seal("pulse", _with(good, **change)), reason, **given)
    said = encode(viewings()[1])
    whole = (len(said).to_bytes(2, "big") + said).ljust(176, b"\0")
    assert boxed(whole) == data
    for how, plain_box, reason in (
        ("padded with ones", whole[:-1] + b"\1", "bad_box"),
        ("a length beyond the box", b"\0\xaf" + whole[2:], "bad_box"),
        ("a length cut short", (len(said) - 1).to_bytes(2, "big") + whole[2:], "bad_box"),
        ("a box that says nothing", bytes(176), "malformed"),
    ):
        book.bad(f"pulse: {how}", "pulse", boxed(plain_box), reason, **given)
    book.bad("pulse: too large", "pulse", 1_025, "too_large", **given)
    book.bad(
        "pulse: another ticket key", "pulse", data, "bad_box", **{**given, "ticket_key": digest("other")}
    )


# --- the way back


def _way_back(book: Book) -> None:
    chain, ticket = pulses(), grant().ticket
    book.unsigned("post", "post", batches.PulsePost(1, [ticket], chain))
    relay = WHO["relay"]
    root = batches.pulses_root(chain)
    times = [T0, T0 + 60_001, T0 + 660_002]
    first = batches.Batch(1, relay.key, 1, bytes(32), T0, T0 + 30_000, root, [ticket], times)
    data = book.signed("batch", "batch", relay, first)
    empty = batches.Batch(1, relay.key, 2, batches.batch_hash(data), T0, T0, merkle.EMPTY_ROOT, [], [])
    book.signed("batch of nothing", "batch", relay, empty)
    rules: Rulings = (
        ("number 0", {"number": 0}, "bad_batch"),
        ("4,097 tickets", {"tickets": [b""] * 4_097}, "malformed"),
    )
    for how, change, reason in rules:
        some = empty if "4,097" in how else first
        book.bad(f"batch: {how}", "batch", relay.seal("batch", _with(some, **change)), reason)
    book.unsigned("parcel", "parcel", batches.Parcel(data, chain))
    book.unsigned("parcel of nothing", "parcel", batches.Parcel(relay.seal("batch", empty), []))
    many = [number.to_bytes(2, "big") for number in range(130)]
    paged = batches.Batch(
        1, relay.key, 3, bytes(32), T0, T0, batches.pulses_root(many), [], [T0 for _ in many]
    )
    book.unsigned("parcel of three pages", "parcel", batches.Parcel(relay.seal("batch", paged), many))
    parcels: tuple[tuple[str, dict[str, object], list[bytes], str], ...] = (
        ("a time too few", {"received_ms": times[:2]}, chain, "bad_batch"),
        ("another root", {"root": bytes(32)}, chain, "bad_root"),
        ("a pulse too few", {"received_ms": times[:2]}, chain[:2], "bad_root"),
        ("another order", {}, [*chain[1:], chain[0]], "bad_root"),
        ("a leaf for each pulse", {"root": merkle.root_of(chain)}, chain, "bad_root"),
        ("number 0", {"number": 0}, chain, "bad_batch"),
    )
    for how, change, some_pulses, reason in parcels:
        inner = relay.seal("batch", _with(first, **change))
        book.bad(f"parcel: {how}", "parcel", encode(batches.Parcel(inner, some_pulses)), reason)
    forged = WHO["lan"].seal("batch", first)
    book.bad("parcel: another signer", "parcel", encode(batches.Parcel(forged, chain)), "bad_signature")
    receipt = batches.Receipt(1, relay.key, root, 3, T0 + 700_000)
    book.signed("receipt", "receipt", relay, receipt)
    for place, key in enumerate(SMALL_ORDER):
        body = encode(_with(receipt, carrier=key))
        forged = SMALL_ORDER[0] + bytes(32)
        book.bad(
            f"receipt: key of small order {place}", "receipt", encode(Signed(body, forged)), "bad_signature"
        )
    body = encode(_with(receipt, carrier=(2**255 - 19 + 3).to_bytes(32, "little")))
    data = encode(Signed(body, relay.sign("receipt", body)))
    book.bad("receipt: key not in canonical form", "receipt", data, "bad_signature")
    body = encode(batches.Receipt(1, MIXED_KEY, bytes(32), 0, 0))
    book.bad("receipt: key of mixed order", "receipt", encode(Signed(body, MIXED_SIG)), "bad_signature")
    intake = WHO["intake"]
    tid = digest("tid")[:16]
    tids = [
        batches.TidAck(tid, 2, [4, 2_000], [batches.Reject(3, "equivocation")]),
        batches.TidAck(digest("other")[:16], 0, [], []),
    ]
    ack = batches.Ack(1, digest("batch"), tids, "2026-09-04.000001", 4_096, 17, digest("log"), T0)
    book.signed("ack", "ack", intake, ack, key=intake.key)
    changes: Changes = {
        "upto 2001": {"tids": [batches.TidAck(tid, 2_001, [], [])]},
        "extra 2001": {"tids": [batches.TidAck(tid, 0, [2_001], [])]},
        "a code of 41 letters": {"tids": [batches.TidAck(tid, 0, [], [batches.Reject(1, "x" * 41)])]},
        "a segment of 41 letters": {"segment": "s" * 41},
    }
    for how, change in changes.items():
        book.bad(f"ack: {how}", "ack", intake.seal("ack", _with(ack, **change)), "malformed", key=intake.key)
    sealed = batches.SealRecord(1, tid, 1, 3, 59_040, [batches.Reject(2, "day_cap")])
    book.signed("seal", "seal", intake, sealed, key=intake.key)
    _compared(book)
    _contradicted(book, ticket, chain)
    book.good("envelopes", "envelopes", encode([ticket, *chain]), [ticket, *chain])
    book.bad("envelopes: text among them", "envelopes", encode([ticket, "ticket"]), "malformed")


def _compared(book: Book) -> None:
    """Add what two carriers tell each other before they exchange."""
    tid, other = digest("tid")[:16], digest("other")[:16]
    held = [digests.held(tid, [1, 2, 3, 5, 2_000], [2, 5]), digests.held(other, range(1, 1_001))]
    book.unsigned("digest", "digest", digests.Digest(1, held))
    book.unsigned("digest of nothing", "digest", digests.Digest(1, []))
    book.unsigned("lacking", "lacking", digests.Lacking(1, [digests.held(tid, [5], [5])], [b"an ack"]))
    span = digests.Span
    changes: tuple[tuple[str, list[digests.Held], str], ...] = (
        ("spans that touch", [digests.Held(tid, [span(1, 2), span(3, 3)], [])], "bad_digest"),
        ("spans that descend", [digests.Held(tid, [span(5, 6), span(1, 2)], [])], "bad_digest"),
        ("a span backwards", [digests.Held(tid, [span(6, 5)], [])], "bad_digest"),
        ("a twin that is not held", [digests.Held(tid, [span(1, 2)], [3])], "bad_digest"),
        ("twins that descend", [digests.Held(tid, [span(1, 2)], [2, 1])], "bad_digest"),
        ("a ticket twice", [held[0], held[0]], "bad_digest"),
        ("number 0", [digests.Held(tid, [span(0, 1)], [])], "malformed"),
        ("number 2001", [digests.Held(tid, [span(2_000, 2_001)], [])], "malformed"),
        (
            "257 tickets",
            [digests.held(bytes((0, n)) + tid[2:], []) for n in range(256)] + held[:1],
            "malformed",
        ),
    )
    for how, items, reason in changes:
        book.bad(f"digest: {how}", "digest", encode(digests.Digest(1, items)), reason)
        book.bad(f"lacking: {how}", "lacking", encode(digests.Lacking(1, items, [])), reason)
    book.bad("digest: 64 KiB and a byte", "digest", 65_537, "too_large")
    book.bad("lacking: 512 KiB and a byte", "lacking", 524_289, "too_large")
    book.bad("lacking: 65 acks", "lacking", encode(digests.Lacking(1, [], [b""] * 65)), "malformed")


def _contradicted(book: Book, ticket: bytes, chain: list[bytes]) -> None:
    """Add evidence: another second pulse beside the sample chain's."""
    intake, session = WHO["intake"], WHO["session"]
    said = pulse.read_pulse(chain[1])[0]
    twin = session.seal("pulse", _with(said, at_ms=said.at_ms + 1))
    shown = decode(
        evidence.Evidence, decode(Signed, evidence.seal_evidence(ticket, [chain[1], twin], intake)).body
    )
    book.signed("evidence", "evidence", intake, shown, key=intake.key)
    forged = encode(Signed(decode(Signed, twin).body, bytes(64)))
    rules: tuple[tuple[str, dict[str, object], str], ...] = (
        ("one body", {"pulses": [twin]}, "malformed"),
        ("one body twice", {"pulses": [twin, twin]}, "no_evidence"),
        ("two numbers", {"pulses": sorted([chain[1], chain[2]], key=_body_hash)}, "no_evidence"),
        ("the other order", {"pulses": shown.pulses[::-1]}, "no_evidence"),
        ("a body nobody signed", {"pulses": [chain[1], forged]}, "bad_signature"),
        ("five bodies", {"pulses": [twin] * 5}, "malformed"),
        ("no ticket", {"ticket": b""}, "malformed"),
    )
    for how, change, reason in rules:
        data = intake.seal("evidence", _with(shown, **change))
        book.bad(f"evidence: {how}", "evidence", data, reason, key=intake.key)
    book.bad("evidence: 8 KiB and a byte", "evidence", 8_193, "too_large", key=intake.key)


def _body_hash(data: bytes) -> bytes:
    return pulse.pulse_hash(decode(Signed, data).body)


# --- nearby and from above


def _nearby(book: Book) -> None:
    lan = WHO["lan"]
    presence = Presence(2, ORIGIN, lan.key, 40_123, T0, True, False, 3, False)
    book.signed("presence", "presence", lan, presence)
    changes: Changes = {
        "port 0": {"port": 0},
        "a net of 7 bytes": {"net": bytes(7)},
        "a number for a boolean": {"ask": 0},
        "17 hops": {"hops": 17},
        "a boolean for a number": {"hops": True},
    }
    for how, change in changes.items():
        book.bad(f"presence: {how}", "presence", lan.seal("presence", _with(presence, **change)), "malformed")
    book.bad("presence: 161 bytes", "presence", 161, "too_large")
    listener, envelope = WHO["box"], lan.seal("presence", presence)
    told, given = tell_presence(envelope, lan.pair(listener.key)), {"seed": digest("box")}
    book.good("a presence told to one box", "told", told, presence, **given)
    wrong: tuple[tuple[str, bytes], ...] = (
        ("the mark of a presence to another", tell_presence(envelope, lan.pair(WHO["device"].key))),
        ("another byte in the mark", told[:1] + bytes([told[1] ^ 1]) + told[2:]),
        ("no mark", envelope),
        ("an empty mark", told[:1] + envelope),
    )
    for how, data in wrong:
        book.bad(f"told: {how}", "told", data, "bad_mark", **given)
    waybill = Waybill(1, lan.key, 2, b"w" * 32, 20)
    book.signed("waybill", "waybill", lan, waybill)
    changes = {
        "batch 0": {"number": 0},
        "a hash of 31 bytes": {"batch": bytes(31)},
        "no pulses": {"pulses": 0},
        "4,097 pulses": {"pulses": 4_097},
    }
    for how, change in changes.items():
        book.bad(f"waybill: {how}", "waybill", lan.seal("waybill", _with(waybill, **change)), "malformed")
    book.bad("waybill: 161 bytes", "waybill", 161, "too_large")


def _carousel(book: Book) -> None:
    catalog = WHO["catalog"]
    film = b"#EXTM3U\n" * 40
    items = [
        Item("trust", "timestamp.json", b"{}"),
        Item("checkpoint", "", b"note"),
        Item("block", str(Cid.of(RAW, film)), film),
    ]
    bundle = pack_bundle(items)
    given = {"key": catalog.key}
    book.good("bundle", "bundle", bundle, {"v": 1, "items": items})
    for how, spoilt, reason in _misshapen(bundle):
        book.bad(f"bundle: {how}", "bundle", spoilt, reason)
    book.bad("bundle: an unknown kind", "bundle", encode([1, [["film", "", b""]]]), "malformed")
    book.bad("bundle: a name of 301 letters", "bundle", encode([1, [["block", "b" * 301, b""]]]), "malformed")
    turns = [timetable.Turn("big-buck-bunny", 0, 181), timetable.Turn("coast", 181, 2**32 - 1)]
    book.unsigned("timetable", "timetable", timetable.Timetable(1, T0, 2_000_000, turns))
    told = [Item("timetable", "", timetable.pack_timetable(timetable.Timetable(1, T0, 2_000_000, turns)))]
    book.good("bundle of a timetable", "bundle", pack_bundle(told), {"v": 1, "items": told})
    many = timetable.Timetable(1, T0, 2_000_000, turns[:1] * 65)
    book.bad("timetable: 65 turns", "timetable", encode(many), "malformed")
    book.bad(
        "timetable: a title in capitals", "timetable", encode([1, T0, 1, [["Coast", 0, 1]]]), "malformed"
    )
    book.bad("timetable: 8,193 bytes", "timetable", 8_193, "too_large")
    ask = symbols.SymbolAsk(1, 2**64 - 1, 1_280, b"\xff\x01", 800)
    book.unsigned("ask for symbols", "symbol-ask", ask)
    for field, value in (("most", 801), ("most", 0), ("symbol_bytes", 100)):
        spoilt = encode(_with(ask, **{field: value}))
        book.bad(f"ask for symbols: {field} {value}", "symbol-ask", spoilt, "malformed")
    book.bad(
        "ask for symbols: 65,537 bytes held",
        "symbol-ask",
        encode(_with(ask, held=bytes(65_537))),
        "malformed",
    )
    descriptor = describe(bundle, ORIGIN, 128, T0 + 600_000)
    book.signed("generation", "generation", catalog, descriptor, **given)
    large = (56_404).to_bytes(8, "big") + bytes(24)
    rules: Rulings = (
        ("another number", {"number": descriptor.number ^ 1}, "bad_descriptor"),
        (
            "56,404 symbols",
            {"number": 56_404, "digest": large, "length": 56_404 * 64, "symbol_bytes": 64},
            "bad_descriptor",
        ),
        ("a length of nothing", {"length": 0}, "malformed"),
        ("a length of 20,000,001", {"length": 20_000_001}, "malformed"),
        ("symbols of 100 bytes", {"symbol_bytes": 100}, "malformed"),
        ("symbols of 1,472 bytes", {"symbol_bytes": 1_472}, "malformed"),
    )
    for how, change, reason in rules:
        book.bad(
            f"generation: {how}",
            "generation",
            catalog.seal("generation", _with(descriptor, **change)),
            reason,
            **given,
        )
    book.bad("generation: 257 bytes", "generation", 257, "too_large", **given)
    head = {"origin": ORIGIN, "number": descriptor.number}
    envelope = seal_descriptor(descriptor, catalog)
    data = pack_packet(ORIGIN, descriptor.number, 64, envelope, is_descriptor=True)
    book.good("packet, descriptor", "packet", data, {**head, "seq": 64, "descriptor": descriptor}, **given)
    book.bad("packet: another magic", "packet", b"G" + data[1:], "bad_magic", **given)
    book.bad("packet: 26 bytes", "packet", data[:26], "short", **given)
    for place in range(descriptor.symbols):
        symbol = bundle[place * 128 : place * 128 + 128].ljust(128, b"\0")
        data = pack_packet(ORIGIN, descriptor.number, 2**31 - 1 - place, bytes((0, 0, 0, place)) + symbol)
        fields = {**head, "seq": 2**31 - 1 - place, "block": 0, "symbol_id": place, "symbol": symbol}
        book.good(f"packet, symbol {place}", "packet", data, fields, **given)


# --- the report


def _report(book: Book) -> None:
    settlement, publisher = WHO["settlement"], WHO["publisher"].key
    lines = [
        statement.Line(publisher, "a.nna", "2026-08", 7, 1, 1, 0, 0, 1),
        statement.Line(publisher, "a.nna", "2026-09", 2**62, 60, 50, 10, 0, 55),
        statement.Line(publisher, "studio-b", "2026-09", 400_000, 40, 30, 0, 10, 41),
    ]
    leaves, root = statement.pack_lines(lines), statement.lines_root(lines)
    tickets = statement.pack_tickets({digest("tid")[:16]: 3, digest("other")[:16]: 2_000})
    relays = [statement.RelayLine(WHO["relay"].key, 2_400_000, 4, 17, [WHO["lan"].key])]
    days = [statement.DayLine("2026-09-04", 0, 3, 59_040)]
    flags = [statement.FlagLine("near_cap", 1, 10)]
    uncounted = [statement.CodeLine("late", 1, 60_000)]
    numbers = (1_000, 850, 4, 50, 0, 5, 101, 81, 10, 10, 10)
    said = statement.Statement(
        1, "2026-09", T0, digest("previous"), Rules(), *numbers, True, 1, 3, 59_040,
        relays, days, flags, uncounted, len(lines), root, 17, digest("log"), sha256(tickets).digest(),
    )  # fmt: skip
    files = [statement.FileHash("leaves.bin", len(leaves), sha256(leaves).digest())]
    head = statement.Head(1, said, files)
    given = {"key": settlement.key}
    book.signed("settle", "settle", settlement, head, **given)
    changes: Changes = {
        "a month with a newline": {"month": "2026-09\n"},
        "month 13": {"month": "2026-13"},
        "shares beyond 10,000": {"rules": _with(Rules(), reserve_points=10_001)},
        "33 flags": {"flags": flags * 33},
    }
    for how, change in changes.items():
        data = settlement.seal("settle", _with(head, statement=_with(said, **change)))
        book.bad(f"settle: {how}", "settle", data, "malformed", **given)
    climbing = _with(head, files=[statement.FileHash("../leaves.bin", 0, bytes(32))])
    book.bad("settle: a file elsewhere", "settle", settlement.seal("settle", climbing), "malformed", **given)
    growth = statement.Consistency(1, "2026-08", 12, digest("older log"), [digest("a"), digest("b")])
    book.good("consistency.bin", "growth", encode(growth), growth)
    first = statement.Consistency(1, "", 0, merkle.EMPTY_ROOT, [])
    book.good("consistency.bin of the first month", "growth", encode(first), first)
    for how, month in (("month 13", "2026-13"), ("half a month", "2026-")):
        book.bad(f"consistency.bin: {how}", "growth", encode(_with(growth, month=month)), "malformed")
    book.good("leaves.bin", "leaves", leaves, lines, root=root)
    book.good("leaves.bin of nobody", "leaves", b"", [], root=merkle.EMPTY_ROOT)
    book.bad("leaves.bin cut short", "leaves", leaves[:-1], "malformed")
    book.bad("leaves.bin of an odd byte", "leaves", leaves + b"\0", "malformed")
    named = [
        {"name": tickets[at : at + 16], "pulses": int.from_bytes(tickets[at + 16 : at + 18], "big")}
        for at in (0, 18)
    ]
    book.good("tickets.bin", "tickets", tickets, named)
    book.bad("tickets.bin cut short", "tickets", tickets[:-1], "malformed")
    book.bad("tickets.bin out of order", "tickets", tickets[18:] + tickets[:18], "malformed")
    book.bad("tickets.bin with a ticket twice", "tickets", tickets[:18] * 2, "malformed")


def _earnings(book: Book) -> None:
    relay = WHO["relay"].key
    for month in ("", "2026-09"):
        book.unsigned(f"earnings request {month!r}", "earnings-request", earnings.EarningsRequest(1, month))
    for how, fields in {"month 13": [1, "2026-13"], "no month": [1], "a newline": [1, "2026-09\n"]}.items():
        book.bad(f"earnings request: {how}", "earnings-request", encode(fields), "malformed")
    book.bad("earnings request: too large", "earnings-request", 1_025, "too_large")
    paid = earnings.PayeeEarning(
        "a.nna", [earnings.TitleViewed("film", 2_400_000, 7_000)], 60, 40, 15, 5,
        [statement.CodeLine("session_cap", 2, 120_000)],
    )  # fmt: skip
    months = [
        earnings.MonthEarnings("2026-10", False, T0, False, [earnings.RelayEarning(relay, 7, 0, 2, 0)], []),
        earnings.MonthEarnings(
            "2026-09", True, T0, True, [earnings.RelayEarning(relay, 2_400_000, 17, 2, 4)], [paid]
        ),
    ]
    answer = earnings.EarningsAnswer(1, "EUR", months)
    book.unsigned("earnings answer", "earnings-answer", answer)
    book.unsigned("earnings answer of nothing", "earnings-answer", earnings.EarningsAnswer(1, "EUR", []))
    changes: Changes = {
        "three months": {"months": [*months, months[0]]},
        "a currency of two letters": {"currency": "EU"},
        "a payee of capitals": {"months": [_with(months[1], payees=[_with(paid, payee="ANN")])]},
        "a month of 17 relays": {"months": [_with(months[0], relays=months[0].relays * 17)]},
    }
    for how, change in changes.items():
        book.bad(f"earnings answer: {how}", "earnings-answer", encode(_with(answer, **change)), "malformed")


# --- keys of protected titles


def _keys(book: Book) -> None:
    ticket, key_ids = grant(), [digest(f"key id {place}")[:16] for place in range(16)]
    keys = [digest(f"content key {place}")[:16] for place in range(16)]
    book.unsigned("key request", "key-request", contentkey.KeyRequest(1, ticket.ticket, key_ids))
    for how, fields in {
        "no key": [1, b"", list[bytes]()],
        "17 keys": [1, b"", [*key_ids, key_ids[0]]],
        "a key id of 15 bytes": [1, b"", [bytes(15)]],
        "a ticket of 1,025 bytes": [1, bytes(1_025), key_ids[:1]],
    }.items():
        book.bad(f"key request: {how}", "key-request", encode(fields), "malformed")
    book.bad("key request: too large", "key-request", 2_049, "too_large")
    grants = [contentkey.KeyGrant(key_id, key, T0) for key_id, key in zip(key_ids, keys, strict=True)]
    book.unsigned("key answer", "key-answer", contentkey.KeyAnswer(1, grants))
    for how, row in {
        "a key of 32 bytes": [key_ids[0], bytes(32), T0],
        "no end": [key_ids[0], keys[0], -1],
    }.items():
        book.bad(f"key answer: {how}", "key-answer", encode([1, [row]]), "malformed")
    _proofs(book, ticket, key_ids[0])
    for path, size in (("720p/seg-00000.m4s", 100), ("720p/part-1/seg-04000.m4s", 32), ("subs-en.vtt", 0)):
        clear = bytes(place * 7 % 251 for place in range(size))
        given = {"key": keys[0], "key_id": key_ids[0], "name": path}
        sealed = protection.seal_file(keys[0], key_ids[0], path, clear)
        read = {"iv": protection.iv_of(key_ids[0], path), "clear": clear}
        book.good(f"sealed file {path}", "sealed-file", sealed, read, **given)
        for how, spoilt in {
            "cut by a byte": sealed[:-1],
            "of another key": protection.seal_file(keys[1], key_ids[0], path, clear),
            "of nothing": b"",
        }.items():
            book.bad(f"sealed file {path}: {how}", "sealed-file", spoilt, "bad_ciphertext", **given)


def _proofs(book: Book, ticket: TicketGrant, key_id: bytes) -> None:
    text = contentkey.prove_ticket(ticket.ticket, ticket.key, key_id, T0)
    proof = contentkey.open_ticket_proof(text)
    given = {"ticket_key": ticket.key, "key_id": key_id}
    book.good("ticket proof", "ticket-proof", text, proof._asdict(), **given)
    scheme, parts = text.split(" ")
    first, at, mac = parts.split(".")
    for how, spoilt in {
        "another scheme": f"Farcast {parts}",
        "a time with a leading zero": f"{scheme} {first}.0{at}.{mac}",
        "no MAC": f"{scheme} {first}.{at}",
        "padding": f"{scheme} {first}=.{at}.{mac}",
        "bits left over": f"{scheme} YR.{at}.{mac}",
    }.items():
        book.bad(f"ticket proof: {how}", "ticket-proof", spoilt, "malformed", **given)
    later = f"{scheme} {first}.{T0 + 1}.{mac}"
    book.bad("ticket proof: of another time", "ticket-proof", later, "wrong_key", **given)
    elsewhere = {**given, "key_id": digest("key id 1")[:16]}
    book.bad("ticket proof: for another key", "ticket-proof", text, "wrong_key", **elsewhere)
    stranger = {**given, "ticket_key": bytes(32)}
    book.bad("ticket proof: of another ticket key", "ticket-proof", text, "wrong_key", **stranger)


def _hints(book: Book) -> None:
    head = Hint(1, ORIGIN, "head", b"a checkpoint note")
    relay = _with(head, topic="relay", news=b"x" * 1_024)
    told = [book.unsigned("hint: a head", "hint", head), book.unsigned("hint: a relay", "hint", relay)]
    for how, spoilt in (
        ("another topic", _with(head, topic="price")),
        ("no news", _with(head, news=b"")),
        ("1,025 bytes of news", _with(head, news=b"x" * 1_025)),
        ("a short origin id", _with(head, net=ORIGIN[:7])),
    ):
        book.bad(f"hint: {how}", "hint", encode(spoilt), "malformed")
    book.bad("hint: too long", "hint", HINT_LIMIT_BYTES + 1, "too_large")
    post = HintPost(1, told)
    book.unsigned("hint post", "hint-post", post)
    for how, hints in (
        ("no hint", []),
        ("nine hints", [told[0]] * 9),
        ("a long hint", [bytes(HINT_LIMIT_BYTES + 1)]),
    ):
        book.bad(f"hint post: {how}", "hint-post", encode(_with(post, hints=hints)), "malformed")
    book.bad("hint post: too long", "hint-post", POST_LIMIT_BYTES + 1, "too_large")
    place = GossipPlace(1, 7_436, WHO["lan"].key)
    book.unsigned("gossip place", "gossip-place", place)
    for how, port in (("port 0", 0), ("port 65536", 65_536)):
        book.bad(f"gossip place: {how}", "gossip-place", encode(_with(place, port=port)), "malformed")


def _sticks(book: Book) -> None:
    manifest = Cid.of(RAW, b"a manifest").encode()
    sea = stick.StickTitle("sea", manifest, 421, 252_000_000, 4)
    index = stick.StickIndex(1, WHO["box"].key, "Films of the coast", T0, [sea])
    data = stick.pack_index(index)
    book.good("stick index", "stick-index", data, index)
    nothing = _with(index, titles=[])
    book.good("stick index: no title", "stick-index", stick.pack_index(nothing), nothing)
    for how, spoilt, reason in _misshapen(data):
        book.bad(f"stick index: {how}", "stick-index", spoilt, reason)
    for how, title, reason in (
        ("no volume", _with(sea, volumes=0), "malformed"),
        ("10,000 volumes", _with(sea, volumes=10_000), "malformed"),
        ("a title that is no id", _with(sea, title="../sea"), "malformed"),
        ("a manifest that is no CID", _with(sea, manifest=bytes(36)), "bad_index"),
    ):
        book.bad(f"stick index: {how}", "stick-index", encode(_with(index, titles=[title])), reason)
    twice = encode(_with(index, titles=[sea, sea]))
    book.bad("stick index: a title twice", "stick-index", twice, "bad_index")


def build() -> str:
    """Return the text of ``messages.json``."""
    book = Book()
    parts = (
        _names, _content, _manifests, _catalog, _trust, _relays, _viewing, _way_back, _nearby, _carousel,
        _report, _earnings, _keys, _sticks, _hints,
    )  # fmt: skip
    for part in parts:
        part(book)
    assert peer_id(WHO["box"].key) == WHO["box"].peer_id
    head = {
        "made_by": "tests/vectors/make_messages.py",
        "seeds": {role: digest(role).hex() for role in ROLES},
    }
    return (
        json.dumps({**head, "valid": book.valid, "invalid": book.invalid}, indent=1, ensure_ascii=False)
        + "\n"
    )


if __name__ == "__main__":
    FILE.write_text(build())
