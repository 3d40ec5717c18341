"""The decoder written from the document alone reads every golden vector and refuses every wrong one."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, verify_raw

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
MESSAGES: dict[str, Any] = json.loads((VECTORS / "messages.json").read_text())
LENIENT = {"certificate", "invite"}
"""What libraries read for the package: X.509 and links. There only what both read must be the same."""


def _load(path: Path) -> Any:  # noqa: ANN401 - a module loaded by its path
    spec = importlib.util.spec_from_file_location(f"interop_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decoder = _load(HERE / "decoder.py")
readers = _load(VECTORS / "readers.py")
mutations = _load(VECTORS / "mutations.py")
content = readers.content
ONE_OF_EACH = {vector["kind"]: vector for vector in MESSAGES["valid"]}


def named(name: str) -> dict[str, Any]:
    """Return one valid vector."""
    return next(vector for vector in MESSAGES["valid"] if vector["name"] == name)


def test_the_decoder_imports_the_standard_library_alone() -> None:
    tree = ast.parse((HERE / "decoder.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or "."] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names


def test_there_is_a_vector_of_every_kind_the_decoder_reads() -> None:
    kinds = {vector["kind"] for vector in MESSAGES["valid"]}
    assert kinds == decoder.KINDS - {"line"}  # a line stands in leaves.bin


@pytest.mark.parametrize("vector", MESSAGES["valid"], ids=lambda vector: vector["name"])
def test_every_vector_decodes_to_its_fields(vector: dict[str, Any]) -> None:
    data, given = content(vector)
    assert decoder.plain(decoder.decode(vector["kind"], data, given)) == vector["fields"]


@pytest.mark.parametrize("vector", MESSAGES["invalid"], ids=lambda vector: vector["name"])
def test_every_wrong_vector_is_refused(vector: dict[str, Any]) -> None:
    data, given = content(vector)
    with pytest.raises(decoder.RefusedError):
        decoder.decode(vector["kind"], data, given)


def test_the_chain_of_pulses_holds_and_breaks_where_one_is_missing() -> None:
    pulses = [content(named(f"pulse, {name}"))[0] for name in ("start", "active", "return")]
    ticket, given = content(named("ticket"))
    decoder.check_chain(ticket, given["key"], pulses)
    for broken in (pulses[1:], pulses[::2], pulses[::-1]):
        with pytest.raises(decoder.RefusedError):
            decoder.check_chain(ticket, given["key"], broken)


def test_the_witness_is_made_from_beacon_ticket_seq_and_block() -> None:
    tid = bytes.fromhex(named("ticket")["fields"]["tid"])
    beacon = bytes.fromhex(named("beacon")["fields"]["value"])
    viewing = named("viewing, active")["fields"]
    assert decoder.witness(beacon, tid, 2, b"a block").hex() == viewing["witness"]


def test_the_car_holds_a_folder_and_a_film_in_parts() -> None:
    data, _ = content(named("CAR"))
    car = decoder.decode("car", data)
    blocks = {block["cid"]: block["data"] for block in car["blocks"]}
    folder = decoder.read_folder(car["roots"][0], blocks)
    assert set(folder) == {"seg 1.m4s", "master.m3u8", "\u00e9.txt"}
    film = decoder.read_file(folder["seg 1.m4s"], blocks)
    assert film == bytes(place * 7 % 251 for place in range(1_100))
    assert decoder.file_cid([film[at : at + 256] for at in range(0, 1_100, 256)], 4) == folder["seg 1.m4s"]


def test_the_carousel_gives_its_bundle_back_from_the_source_symbols() -> None:
    packets = [vector for vector in MESSAGES["valid"] if vector["kind"] == "packet"]
    read = [decoder.decode("packet", *content(vector)) for vector in packets]
    bundle = decoder.join_symbols(read[0]["descriptor"], read[1:])
    assert bundle == content(named("bundle"))[0]
    with pytest.raises(decoder.RefusedError):
        decoder.join_symbols(read[0]["descriptor"], read[2:])


def test_a_follower_refuses_a_log_that_shrinks_ages_or_forks() -> None:
    data, given = content(named("checkpoint"))
    head = decoder.decode("checkpoint", data, given)
    page = decoder.decode("page", content(named("page"))[0])
    entries: list[bytes] = page["entries"]
    decoder.follow(None, head, entries)
    decoder.follow(head, head, entries)
    for old, seen in (
        ({**head, "size": 8}, entries),
        ({**head, "time_ms": head["time_ms"] + 1}, entries),
        (head, entries[:-1]),
        (head, [*entries[:-1], entries[0]]),
    ):
        with pytest.raises(decoder.RefusedError):
            decoder.follow(old, head, seen)


FILES: list[dict[str, Any]] = json.loads((VECTORS / "cids.json").read_text())["files"]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["name"])
def test_the_decoder_names_files_as_kubo_does(case: dict[str, Any]) -> None:
    head = hashlib.sha256(case["name"].encode() + b"\0")

    def chunks() -> Iterator[bytes]:
        rest, left = b"", case["size"]
        counter = 0
        while left:
            size = min(left, case["chunk"])
            parts = [rest]
            have = len(rest)
            while have < size:
                part = head.copy()
                part.update(counter.to_bytes(8, "big"))
                parts.append(part.digest())
                have, counter = have + 32, counter + 1
            data = b"".join(parts)
            yield data[:size]
            rest, left = data[size:], left - size

    assert decoder.file_cid(chunks(), case["width"]) == case["cid"]


@pytest.mark.parametrize(
    "name",
    ["largest plain folder", "smallest sharded folder", "sharded folder of 10,000",
     "sharded folder of many alphabets"],
)  # fmt: skip
def test_the_decoder_names_folders_as_kubo_does(name: str) -> None:
    files = _load(VECTORS / "make_cids.py").folders()[name]
    entries = {path: (decoder.cid_of(0x55, data), len(data)) for path, data in files.items()}
    assert decoder.folder_cid(entries) == json.loads((VECTORS / "cids.json").read_text())["folders"][name]


def test_libsodium_and_the_decoder_agree_on_spoilt_signatures() -> None:
    identity = Identity(bytes(range(32)))
    message = b"message"
    signature = identity.sign_raw(message)
    assert decoder.verify(identity.key, signature, message)
    for place in range(0, 768, 7):
        both = bytearray(identity.key + signature)
        both[place // 8] ^= 1 << place % 8
        key, spoilt = bytes(both[:32]), bytes(both[32:])
        assert decoder.verify(key, spoilt, message) is verify_raw(key, message, spoilt) is False


def agree(kind: str, data: bytes, given: dict[str, Any]) -> None:
    """Check that package and decoder read the same or both refuse."""
    try:
        theirs: object = decoder.plain(decoder.decode(kind, data, given))
    except decoder.RefusedError:
        theirs = None
    try:
        ours: object = readers.read(kind, data, given)[0]
    except RemoteError:
        ours = None
    if kind not in LENIENT or (ours is not None and theirs is not None):
        assert theirs == ours


@pytest.mark.parametrize("kind", sorted(readers.READERS))
@settings(deadline=None)
@drawn(draw=st.data())
def test_package_and_decoder_agree_on_bytes_near_a_vector(kind: str, draw: st.DataObject) -> None:
    data, given = content(ONE_OF_EACH[kind])
    data = draw.draw(mutations.near(data))
    if kind == "block":
        given = {"cid": decoder.cid_text(decoder.cid_of(0x70, data))}
    agree(kind, data, given)


@pytest.mark.parametrize("kind", sorted(mutations.SIGNERS))
@settings(deadline=None)
@drawn(draw=st.data())
def test_package_and_decoder_agree_on_signed_bodies_of_any_shape(kind: str, draw: st.DataObject) -> None:
    data, given = content(ONE_OF_EACH[kind])
    agree(kind, draw.draw(mutations.resigned(kind, data, MESSAGES["seeds"])), given)


@pytest.mark.parametrize("kind", sorted(decoder.PLAIN.keys() & readers.READERS.keys()))
@settings(deadline=None)
@drawn(draw=st.data())
def test_package_and_decoder_agree_on_messages_of_any_shape(kind: str, draw: st.DataObject) -> None:
    data, given = content(ONE_OF_EACH[kind])
    agree(kind, draw.draw(mutations.reshaped(data)), given)
