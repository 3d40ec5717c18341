"""How the package reads each kind of vector in ``messages.json``, and writes it again.

``read(kind, data, given)`` returns the fields as the file has them, and the bytes that encoding what
was read gives; it raises what the package raises for bytes it refuses.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any, cast

import msgspec

from farcast.node.catalog.rootfile import read_root
from farcast.node.http.tls import peer_key
from farcast.protocol import (
    batch,
    car,
    contentkey,
    digest,
    earnings,
    enrol,
    evidence,
    generation,
    hint,
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
from farcast.protocol.beacon import open_beacon
from farcast.protocol.catalog import Page, open_entry
from farcast.protocol.cid import Cid
from farcast.protocol.codec import Message, decode, encode
from farcast.protocol.dagpb import encode as encode_node
from farcast.protocol.directory import open_directory, open_record
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, Signed, parse_peer_id, peer_id, unseal
from farcast.protocol.invite import Invite, format_invite, parse_invite
from farcast.protocol.keyring import open_keyring
from farcast.protocol.manifest import open_manifest
from farcast.protocol.note import Checkpoint
from farcast.protocol.presence import is_marked, open_presence, split_told, tell_presence
from farcast.protocol.radio import open_waybill
from farcast.protocol.request import open_authorization
from farcast.protocol.rotation import open_rotation
from farcast.protocol.ticket import TicketOffice, open_ticket

Given = dict[str, Any]
Read = tuple[Any, bytes]


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


def content(vector: dict[str, Any]) -> tuple[bytes, Given]:
    """Return a vector's bytes and what its reader is given."""
    given = {
        name: value if name in ("name", "cid") or isinstance(value, int) else bytes.fromhex(value)
        for name, value in vector["given"].items()
    }
    if "zeros" in vector:
        return bytes(vector["zeros"]), given
    return vector["text"].encode() if "text" in vector else bytes.fromhex(vector["bytes"]), given


def read(kind: str, data: bytes, given: Given) -> Read:
    """Read ``data`` as ``kind``; raises ``RemoteError`` for what the package refuses."""
    fields, again = READERS[kind](data, given)
    return plain(fields), again


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:  # these come as text, never as bytes
        raise RemoteError("not UTF-8", reason="malformed") from error


def _resealed(data: bytes, message: object) -> bytes:
    return encode(Signed(encode(message), decode(Signed, data).sig))


def _signed(opened: Callable[[bytes, Given], object]) -> Callable[[bytes, Given], Read]:
    def reader(data: bytes, given: Given) -> Read:
        message = opened(data, given)
        return message, _resealed(data, message)

    return reader


def _unsigned(opened: Callable[[bytes], object]) -> Callable[[bytes, Given], Read]:
    def reader(data: bytes, given: Given) -> Read:
        del given
        message = opened(data)
        return message, encode(message)

    return reader


def _peer_id(data: bytes, given: Given) -> Read:
    del given
    key = parse_peer_id(_text(data))
    return {"key": key}, peer_id(key).encode()


def _cid(data: bytes, given: Given) -> Read:
    del given
    text = _text(data)
    cid = Cid.parse(text)
    fields = {"cid": str(cid), "codec": cid.codec, "hash": cid.hash_code, "digest": cid.digest}
    return fields, str(cid).encode() if text[:1] == "b" else data  # read in other bases, written in base32


def _block(data: bytes, given: Given) -> Read:
    cid = Cid.parse(given["cid"])
    if not cid.matches(data):
        raise RemoteError("another block", reason="hash_mismatch")
    node = unixfs.parse(cid, data)
    links = [{"cid": str(link.cid), "name": link.name, "tsize": link.tsize} for link in node.links]
    fields = {
        "type": node.kind,
        "data": node.data,
        "filesize": node.filesize,
        "blocksizes": node.blocksizes,
        "links": links,
    }
    if node.kind == "directory":
        return fields, encode_node(node.links, b"\x08\x01")
    return fields, data


def _car(data: bytes, given: Given) -> Read:
    del given
    reader = car.Reader(limit_bytes=1 << 20)
    blocks = reader.push(data)
    reader.finish()
    roots = reader.roots or ()
    fields = {
        "roots": [str(root) for root in roots],
        "blocks": [{"cid": str(cid), "data": block} for cid, block in blocks],
    }
    return fields, car.header(roots) + b"".join(car.section(cid, block) for cid, block in blocks)


def _checkpoint(data: bytes, given: Given) -> Read:
    head = note.open_note(data, given["name"], given["key"])
    short = note.compact(data, given["name"], given["key"])
    mine = note.expand(short, given["name"])
    return head, data if data.startswith(mine) else mine  # others may have signed as well


def _compact(data: bytes, given: Given) -> Read:
    whole = note.expand(data, given["name"])
    head = note.open_note(whole, given["name"], given["key"])
    return head, note.compact(whole, given["name"], given["key"])


def _inclusion(data: bytes, given: Given) -> Read:
    proof = decode(list[bytes], data)
    leaf = merkle.leaf_hash(given["leaf"])
    if not merkle.verify_inclusion(leaf, given["index"], given["size"], proof, given["root"]):
        raise RemoteError("the proof proves nothing", reason="bad_proof")
    return {"proof": proof}, encode(proof)


def _consistency(data: bytes, given: Given) -> Read:
    proof = decode(list[bytes], data)
    old, new = given["old_size"], given["size"]
    if not merkle.verify_consistency(old, new, given["old_root"], given["root"], proof):
        raise RemoteError("the proof proves nothing", reason="bad_proof")
    return {"proof": proof}, encode(proof)


def _ticket(data: bytes, given: Given) -> Read:
    ticket, _ = open_ticket(data, [given["key"]])
    fields = plain(ticket)
    if "secret" in given:
        office = TicketOffice(Identity(bytes(32)), given["secret"])
        fields |= {"opened": office.holder(ticket), "ticket_key": office.key(ticket.tid)}
    return fields, _resealed(data, ticket)


def _pulse(data: bytes, given: Given) -> Read:
    ticket, _ = open_ticket(given["ticket"], [given["ticket_signer"]])
    said = pulse.check_pulse(data, ticket)
    viewing = pulse.open_viewing(said, given["ticket_key"])
    return {**plain(said), "viewing": viewing}, _resealed(data, said)


def _directory(data: bytes, given: Given) -> Read:
    directory, records = open_directory(data, given["key"])
    return {**plain(directory), "good": records}, _resealed(data, directory)


def _request(data: bytes, given: Given) -> Read:
    del given
    proof = open_authorization(f"Farcast {urlsafe_b64encode(data).rstrip(b'=').decode()}")
    return proof, _resealed(data, proof)


def _generation(data: bytes, given: Given) -> Read:
    descriptor = generation.read_descriptor(data)
    if not generation.is_vouched(data, [given["key"]]):
        raise RemoteError("nobody's descriptor", reason="bad_signature")
    return descriptor, _resealed(data, descriptor)


def _packet(data: bytes, given: Given) -> Read:
    packet = generation.parse_packet(data)
    fields: dict[str, object] = {"origin": packet.origin, "number": packet.number, "seq": packet.seq}
    if packet.is_descriptor:
        descriptor, _ = _generation(packet.body, given)
        if (descriptor.origin, descriptor.number) != (packet.origin, packet.number):  # as the receiver does
            raise RemoteError("a descriptor in another generation's packet", reason="bad_descriptor")
        fields["descriptor"] = descriptor
    else:
        block, symbol_id = packet.body[0], int.from_bytes(packet.body[1:4], "big")
        fields |= {"block": block, "symbol_id": symbol_id, "symbol": packet.body[4:]}
    again = generation.pack_packet(
        packet.origin, packet.number, packet.seq, packet.body, is_descriptor=packet.is_descriptor
    )
    return fields, again


def _bundle(data: bytes, given: Given) -> Read:
    del given
    items = generation.unpack_bundle(data)
    return {"v": 1, "items": items}, generation.pack_bundle(items)


def _invite(data: bytes, given: Given) -> Read:
    del given
    text = _text(data)
    invite = parse_invite(text)
    written = format_invite(invite)
    return invite, written.encode() if "kind=" in text else data  # what is left out means a viewer


def _root(data: bytes, given: Given) -> Read:
    hint = read_root(data, given["sha256"].hex())
    endpoints = [f"[{e.host}]:{e.port}" if ":" in e.host else f"{e.host}:{e.port}" for e in hint.endpoints]
    fields = {
        "name": hint.name,
        "key": hint.box,
        "endpoints": endpoints,
        "settlement": hint.settlement,
        "intake": hint.intake,
    }
    return fields, data


def _leaves(data: bytes, given: Given) -> Read:
    lines = statement.unpack_lines(data)
    if "root" in given and statement.lines_root(lines) != given["root"]:
        raise RemoteError("other lines", reason="bad_root")
    return lines, statement.pack_lines(lines)


def _tickets(data: bytes, given: Given) -> Read:
    del given
    tickets = statement.unpack_tickets(data)
    fields = [{"name": name, "pulses": count} for name, count in tickets.items()]
    return fields, b"".join(name + count.to_bytes(2, "big") for name, count in tickets.items())


def _ticket_proof(data: bytes, given: Given) -> Read:
    proof = contentkey.open_ticket_proof(_text(data))
    if not proof.holds(given["ticket_key"], given["key_id"], proof.at_ms):
        raise RemoteError("a proof of another ticket key", reason="wrong_key")
    written = contentkey.prove_ticket(proof.ticket, given["ticket_key"], given["key_id"], proof.at_ms)
    return proof._asdict(), written.encode() if data.startswith(b"Farcast-Ticket") else data


def _sealed_file(data: bytes, given: Given) -> Read:
    key, key_id, path = given["key"], given["key_id"], given["name"]
    clear = protection.open_file(key, key_id, path, data)
    again = protection.seal_file(key, key_id, path, clear)
    return {"iv": protection.iv_of(key_id, path), "clear": clear}, again


def _told(data: bytes, given: Given) -> Read:
    try:
        mark, envelope = split_told(data)
        presence = open_presence(envelope)
    except RemoteError as error:  # the mark decides first; here both are looked at
        raise RemoteError(str(error), reason="bad_mark") from error
    pair = Identity(given["seed"]).pair(presence.key)
    if not is_marked(mark, envelope, pair):
        raise RemoteError("somebody else's mark", reason="bad_mark")
    return presence, tell_presence(_resealed(envelope, presence), pair)


def _parcel(data: bytes) -> Message:
    batch.open_parcel(data)
    return decode(batch.Parcel, data)


def _evidence(data: bytes, given: Given) -> Message:
    evidence.open_evidence(data, [given["key"]])
    return decode(evidence.Evidence, decode(Signed, data).body)


READERS: dict[str, Callable[[bytes, Given], Read]] = {
    "manifest": _signed(lambda data, _: open_manifest(data)),
    "ticket": _ticket,
    "pulse": _pulse,
    "batch": _signed(lambda data, _: batch.open_batch(data)),
    "parcel": _unsigned(_parcel),
    "receipt": _signed(lambda data, _: batch.open_receipt(data)),
    "ack": _signed(lambda data, given: batch.open_ack(data, [given["key"]])),
    "seal": _signed(lambda data, given: unseal("seal", batch.SealRecord, data, given["key"])),
    "beacon": _signed(lambda data, given: open_beacon(data, given["key"])),
    "presence": _signed(lambda data, _: open_presence(data)),
    "told": _told,
    "waybill": _signed(lambda data, _: open_waybill(data)),
    "record": _signed(lambda data, _: open_record(data)),
    "rotation": _signed(lambda data, _: open_rotation(data)),
    "directory": _directory,
    "generation": _generation,
    "request": _request,
    "evidence": _signed(_evidence),
    "digest": _unsigned(digest.open_digest),
    "lacking": _unsigned(digest.open_lacking),
    "hint": _unsigned(hint.open_hint),
    "hint-post": _unsigned(hint.open_post),
    "gossip-place": _unsigned(hint.open_place),
    "settle": _signed(lambda data, given: statement.open_head(data, [given["key"]])),
    "growth": _unsigned(lambda data: decode(statement.Consistency, data)),
    "entry": _unsigned(open_entry),
    "page": _unsigned(lambda data: decode(Page, data)),
    "keyring": _unsigned(open_keyring),
    "post": _unsigned(lambda data: decode(batch.PulsePost, data, limit_bytes=batch.BATCH_LIMIT_BYTES)),
    "bundle": _bundle,
    "timetable": _unsigned(timetable.read_timetable),
    "symbol-ask": _unsigned(symbols.read_ask),
    "viewing": _unsigned(lambda data: decode(pulse.Viewing, data)),
    "device-request": _unsigned(enrol.open_device_request),
    "device-answer": _unsigned(enrol.open_device_answer),
    "ticket-request": _unsigned(enrol.open_ticket_request),
    "ticket-answer": _unsigned(enrol.open_ticket_answer),
    "relay-request": _unsigned(enrol.open_relay_request),
    "relay-answer": _unsigned(enrol.open_relay_answer),
    "check-request": _unsigned(enrol.open_check_request),
    "check-answer": _unsigned(enrol.open_check_answer),
    "envelopes": _unsigned(lambda data: decode(list[bytes], data)),
    "checkpoint": _checkpoint,
    "compact-checkpoint": _compact,
    "inclusion": _inclusion,
    "consistency": _consistency,
    "car": _car,
    "cid": _cid,
    "block": _block,
    "peer-id": _peer_id,
    "invite": _invite,
    "certificate": lambda data, _: ({"key": peer_key(data)}, data),
    "packet": _packet,
    "root": _root,
    "leaves": _leaves,
    "tickets": _tickets,
    "earnings-request": _unsigned(earnings.open_earnings_request),
    "earnings-answer": _unsigned(earnings.open_earnings_answer),
    "key-request": _unsigned(contentkey.open_key_request),
    "key-answer": _unsigned(contentkey.open_key_answer),
    "ticket-proof": _ticket_proof,
    "sealed-file": _sealed_file,
    "stick-index": _unsigned(stick.open_index),
}
