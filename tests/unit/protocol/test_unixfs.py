"""UnixFS against the golden CIDs of a real Kubo, and against hostile trees."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol import car
from farcast.protocol.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, Cid, varint
from farcast.protocol.dagpb import LINK_LIMIT, encode
from farcast.protocol.errors import LocalError, RemoteError
from farcast.protocol.unixfs import (
    BLOCK_LIMIT_BYTES,
    CHUNK_BYTES,
    DEPTH_LIMIT,
    DIRECTORY_LIMIT_BYTES,
    WIDTH,
    Entry,
    FileWriter,
    Leaf,
    Link,
    MissingError,
    content,
    directory,
    folder,
    leaves,
    listing,
    locate,
    parse,
    resolve,
)

Blocks = dict[Cid, bytes]


@pytest.fixture(scope="module")
def golden(vectors: Callable[[str], Any]) -> Any:  # noqa: ANN401 - JSON
    return vectors("cids")


@pytest.fixture(scope="module")
def inputs(vector_script: Callable[[str], ModuleType]) -> ModuleType:
    return vector_script("make_cids")


def write(
    data: bytes, chunk: int = CHUNK_BYTES, width: int = WIDTH, step: int = 1 << 24
) -> tuple[Blocks, Entry]:
    """Write a file in steps and return its blocks."""
    writer = FileWriter(chunk, width)
    blocks: Blocks = {}
    for start in range(0, len(data), step):
        blocks.update(writer.push(data[start : start + step]))
    last, entry = writer.finish()
    blocks.update(last)
    return blocks, entry


def write_folder(files: Mapping[str, bytes | None]) -> tuple[Blocks, Entry]:
    """Write a folder given as path to content, None for an empty folder."""
    blocks: Blocks = {}
    here: dict[str, Entry] = {}
    below: dict[str, dict[str, bytes | None]] = {}
    for path, data in files.items():
        name, _, rest = path.partition("/")
        if rest or (data is None and name):
            below.setdefault(name, {}).update({rest: data} if rest else {})
        elif data is not None:
            more, here[name] = write(data)
            blocks |= more
    for name, entries in below.items():
        more, here[name] = write_folder(entries)
        blocks |= more
    made, entry = folder(here)
    return blocks | dict(made), entry


def read(root: Cid, blocks: Blocks) -> bytes:
    return b"".join(content(leaf, blocks[leaf.cid]) for leaf in leaves(root, blocks.get))


def file_node(children: list[tuple[Cid, int]], data: bytes = b"") -> tuple[Cid, bytes]:
    """Make an inner file node by hand."""
    message = b"\x08\x02" + (b"\x12" + varint(len(data)) + data if data else b"")
    message += b"\x18" + varint(len(data) + sum(size for _, size in children))
    message += b"".join(b"\x20" + varint(size) for _, size in children)
    block = encode([Link("", cid, size) for cid, size in children], message)
    return Cid.of(DAG_PB, block), block


def test_every_file_has_the_cid_kubo_gives_it(golden: Any, inputs: ModuleType) -> None:  # noqa: ANN401
    assert len(golden["files"]) == len(inputs.FILES)
    for case in golden["files"]:
        data = inputs.stream(case["name"], case["size"])
        blocks, entry = write(data, case["chunk"], case["width"])
        assert str(entry.cid) == case["cid"], case["name"]
        assert entry.size == len(data)
        assert read(entry.cid, blocks) == data


def test_every_folder_has_the_cid_kubo_gives_it(golden: Any, inputs: ModuleType) -> None:  # noqa: ANN401
    folders = inputs.folders()
    assert golden["folders"].keys() == folders.keys()
    for name, cid in golden["folders"].items():
        blocks, entry = write_folder(folders[name])
        assert str(entry.cid) == cid, name
        for path, data in list(folders[name].items())[:12]:
            if data is not None:
                assert read(resolve(entry.cid, path.split("/"), blocks.get), blocks) == data


@pytest.mark.parametrize("name", ["CIDv0 file", "trickle file", "CIDv1 file with dag-pb leaves"])
def test_files_of_other_layouts_are_read(name: str, golden: Any, inputs: ModuleType) -> None:  # noqa: ANN401
    root, blocks = open_car(golden["reads"][name])
    assert read(root, blocks) == inputs.stream("old", 1000)


def test_a_sharded_folder_is_listed_and_walked(golden: Any, inputs: ModuleType) -> None:  # noqa: ANN401
    root, blocks = open_car(golden["reads"]["sharded folder"])
    entries = listing(root, blocks.get)
    assert {entry.name for entry in entries} == inputs.SHARDED.keys()
    for entry in entries:
        assert resolve(root, [entry.name], blocks.get) == entry.cid
        assert locate(root, [entry.name], blocks.get)[1:] == (entry.cid, entry.tsize)
    with pytest.raises(RemoteError, match="not in the hamt") as caught:
        resolve(root, ["leaf 61"], blocks.get)
    assert caught.value.reason == "not_found"
    del blocks[next(cid for cid in blocks if cid.codec == DAG_PB and cid != root)]
    with pytest.raises(MissingError):
        listing(root, blocks.get)


def open_car(golden: Any) -> tuple[Cid, Blocks]:  # noqa: ANN401
    reader = car.Reader()
    blocks = dict(reader.push(base64.b64decode(golden["car"])))
    reader.finish()
    root = Cid.parse(golden["cid"])
    assert reader.roots == (root,)
    return root, blocks


@given(st.binary(max_size=200), st.integers(1, 20), st.integers(2, 5), st.integers(1, 60))
def test_how_a_file_is_cut_on_the_way_changes_nothing(data: bytes, chunk: int, width: int, step: int) -> None:
    blocks, entry = write(data, chunk, width)
    assert write(data, chunk, width, step) == (blocks, entry)
    assert read(entry.cid, blocks) == data
    assert entry.tsize == tree_bytes(entry.cid, blocks)
    plan = leaves(entry.cid, blocks.get)
    assert [leaf.offset for leaf in plan] == list(range(0, max(len(data), 1), chunk))
    assert sum(leaf.size for leaf in plan) == len(data)


@given(st.binary(max_size=200), st.integers(1, 20), st.integers(2, 5))
def test_chunks_named_by_their_reader_make_the_same_file(data: bytes, chunk: int, width: int) -> None:
    writer = FileWriter(chunk, width)
    blocks: Blocks = {}
    for start in range(0, len(data), chunk):
        piece = data[start : start + chunk]
        blocks[Cid.of(RAW, memoryview(piece))] = piece
        blocks.update(writer.chunk(Cid.of(RAW, piece), len(piece)))
    last, entry = writer.finish()
    assert ({**blocks, **dict(last)}, entry) == write(data, chunk, width)


def test_a_chunk_where_none_begins_is_refused() -> None:
    within, after = FileWriter(), FileWriter()
    within.push(b"a")
    after.chunk(Cid.of(RAW, b"a"), 1)
    for writer, size_bytes in ((within, CHUNK_BYTES), (after, CHUNK_BYTES), (FileWriter(), CHUNK_BYTES + 1)):
        with pytest.raises(LocalError, match="no chunk of") as caught:
            writer.chunk(Cid.of(RAW, bytes(size_bytes)), size_bytes)
        assert caught.value.reason == "uneven"
    with pytest.raises(LocalError, match="after the last chunk"):
        after.push(b"b")


def tree_bytes(cid: Cid, blocks: Blocks) -> int:
    links = parse(cid, blocks[cid]).links
    return len(blocks[cid]) + sum(tree_bytes(link.cid, blocks) for link in links)


def test_a_block_comes_as_soon_as_its_bytes_are_there() -> None:
    writer = FileWriter()
    for number in range(64):
        half = bytes((number,)) * (CHUNK_BYTES // 2)
        assert [len(data) for _, data in writer.push(half)] == [CHUNK_BYTES] * (number % 2)


def test_a_file_of_many_blocks_needs_only_its_inner_nodes_for_the_plan() -> None:
    blocks, entry = write(bytes(range(256)) * 4, 10, 4)
    inner = {cid: data for cid, data in blocks.items() if cid.codec == DAG_PB}
    assert len(leaves(entry.cid, inner.get)) == 103
    absent = next(cid for cid in inner if cid != entry.cid)
    del inner[absent]
    with pytest.raises(MissingError) as caught:
        leaves(entry.cid, inner.get)
    assert caught.value.cid == absent
    assert caught.value.reason == "missing_block"


def test_a_leaf_of_another_length_than_its_parent_says_is_refused() -> None:
    leaf = Cid.of(RAW, b"12345")
    root, node = file_node([(leaf, 4)])
    (plan,) = leaves(root, {root: node}.get)
    with pytest.raises(RemoteError):
        content(plan, b"12345")


def test_a_layout_no_block_could_hold_is_refused() -> None:
    for chunk, width in ((0, 2), (BLOCK_LIMIT_BYTES + 1, 2), (1, 1), (1, LINK_LIMIT + 1)):
        with pytest.raises(LocalError):
            FileWriter(chunk, width)


def test_a_folder_kubo_would_shard_is_refused() -> None:
    empty = Entry(Cid.of(RAW, b""), 0, 0)
    entries = {f"{10**9 + number}": empty for number in range(4854)}
    assert len(directory(entries)[1]) <= DIRECTORY_LIMIT_BYTES
    with pytest.raises(LocalError) as caught:
        directory(entries | {"1000004854": empty})
    assert caught.value.reason == "directory_too_large"


@pytest.mark.parametrize("name", ["a\ud800", "x" * 1025, "\u00e9" * 513])
def test_a_name_no_block_can_hold_is_refused(name: str) -> None:
    entry = Entry(Cid.of(RAW, b""), 0, 0)
    with pytest.raises(LocalError):
        directory({name: entry})
    root, block, _ = directory({"x": entry})
    with pytest.raises(RemoteError) as caught:
        resolve(root, [name], {root: block}.get)
    assert caught.value.reason == "not_found"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0"])
def test_a_name_no_path_can_reach_is_neither_written_nor_read(name: str) -> None:
    entry = Entry(Cid.of(RAW, b""), 0, 0)
    with pytest.raises(LocalError):
        directory({name: entry})
    block = encode([Link(name, entry.cid, 0)], b"\x08\x01")
    with pytest.raises(RemoteError):
        parse(Cid.of(DAG_PB, block), block)


def test_a_path_is_followed_through_folders_only() -> None:
    blocks, entry = write_folder({"a/b/c.txt": b"c", "a/d.txt": b"d"})
    assert resolve(entry.cid, [], blocks.get) == entry.cid
    assert [link.name for link in listing(resolve(entry.cid, ["a"], blocks.get), blocks.get)] == [
        "b",
        "d.txt",
    ]
    for path in (["x"], ["a", "d.txt", "e"], ["a"] * (DEPTH_LIMIT + 1)):
        with pytest.raises(RemoteError) as caught:
            resolve(entry.cid, path, blocks.get)
        assert caught.value.reason == "not_found"
    with pytest.raises(RemoteError) as caught:
        leaves(entry.cid, blocks.get)
    assert caught.value.reason == "not_a_file"
    with pytest.raises(RemoteError) as caught:
        listing(resolve(entry.cid, ["a", "d.txt"], blocks.get), blocks.get)
    assert caught.value.reason == "not_a_folder"


def test_identity_blocks_are_read_without_a_store() -> None:
    _, block, _ = directory({"x": Entry(Cid(RAW, b"hi", IDENTITY), 2, 2)})
    root = Cid(DAG_PB, block, IDENTITY)
    leaf = resolve(root, ["x"], lambda _: None)
    assert leaves(leaf, lambda _: None) == [Leaf(leaf, 0, 2)]


def test_inner_nodes_may_hold_bytes_of_their_own() -> None:
    tail = Cid.of(RAW, b"tail")
    root, node = file_node([(tail, 4)], b"head")
    blocks = {root: node, tail: b"tail"}
    assert leaves(root, blocks.get) == [Leaf(root, 0, 4), Leaf(tail, 4, 4)]
    assert read(root, blocks) == b"headtail"


def test_a_tree_too_deep_is_refused() -> None:
    cid, size = Cid.of(RAW, b"x"), 1
    blocks: Blocks = {}
    for _ in range(DEPTH_LIMIT + 2):
        cid, node = file_node([(cid, size)])
        blocks[cid] = node
    with pytest.raises(RemoteError):
        leaves(cid, blocks.get)


@pytest.mark.parametrize("size", [0, 1])
def test_a_small_tree_that_unfolds_without_end_is_refused_soon(size: int) -> None:
    cid = Cid.of(RAW, b"x" * size)
    blocks: Blocks = {}
    loads = 0
    for _ in range(4):
        size_below = size
        cid, node = file_node([(cid, size_below)] * 1_000)
        size *= 1_000
        blocks[cid] = node

    def load(wanted: Cid) -> bytes | None:
        nonlocal loads
        loads += 1
        return blocks.get(wanted)

    if size:
        with pytest.raises(RemoteError) as caught:
            leaves(cid, load)
        assert caught.value.reason == "too_large"
    else:
        assert leaves(cid, load) == []
    assert loads < 1_000


def test_a_child_that_is_not_as_large_as_its_parent_says_is_refused() -> None:
    child, block = file_node([(Cid.of(RAW, b"x"), 1)])
    root, node = file_node([(child, 2)])
    with pytest.raises(RemoteError):
        leaves(root, {child: block, root: node}.get)


def test_a_folder_inside_a_file_is_refused() -> None:
    child, block, _ = directory({})
    root, node = file_node([(child, 2)])
    with pytest.raises(RemoteError):
        leaves(root, {child: block, root: node}.get)


LEAF = Link("", Cid.of(RAW, b"x"), 1)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x0a\x00",  # no type
        encode([], b"\x08\x09"),  # unknown type
        encode([LEAF], b"\x08\x02\x18\x01"),  # a link without its size
        encode([LEAF], b"\x08\x02\x18\x02\x20\x01"),  # sizes that do not add up
        encode([LEAF], b"\x08\x02\x20" + varint(2**60)),
        encode([LEAF] * (LINK_LIMIT + 1), b"\x08\x01"),
        encode([], b"\x08\x05\x28\x22\x30\x07"),  # a shard of fanout 7
        encode([], b"\x08\x05\x28\x23\x30\x08"),  # a shard of another hash
        encode([LEAF], b"\x08\x05\x28\x22\x30\x08"),  # a shard with a link of no position
        encode([], b"\x0a\x01\x02"),  # the type as bytes
        encode([LEAF], b"\x08\x01") + b"\x12\x00",  # links before and after the data
        b"\x1a\x00",  # an unknown field
        b"\x12\x02\x12\x00",  # a link without a CID
        b"\x0b",  # a group
        bytes(BLOCK_LIMIT_BYTES + 1),
    ],
)
def test_a_block_that_is_no_sound_unixfs_is_refused(block: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        parse(Cid.of(DAG_PB, block), block)
    assert caught.value.reason == "malformed"


def test_a_block_of_another_codec_is_no_file() -> None:
    with pytest.raises(RemoteError):
        parse(Cid.of(DAG_CBOR, b"\xa0"), b"\xa0")


def test_packed_sizes_unknown_fields_and_data_before_links_are_read() -> None:
    link = encode([LEAF], b"")[:-2]
    data = b"\x08\x02\x18\x01\x22\x01\x01\x38\x24\x42\x00\x4d\x00\x00\x00\x00"
    block = b"\x0a" + varint(len(data)) + data + link
    node = parse(Cid.of(DAG_PB, block), block)
    assert (node.kind, node.links, node.blocksizes, node.filesize) == ("file", (LEAF,), (1,), 1)


def test_a_symlink_names_its_target() -> None:
    block = encode([], b"\x08\x04\x12\x03foo")
    node = parse(Cid.of(DAG_PB, block), block)
    assert (node.kind, node.data) == ("symlink", b"foo")


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda data: encode([LEAF], b"\x08\x02" + data)))
def test_any_bytes_parse_or_are_a_remote_error(data: bytes) -> None:
    cid = Cid.of(DAG_PB, data)
    try:
        node = parse(cid, data)
    except RemoteError:
        return
    assert len(node.links) <= LINK_LIMIT


@given(st.data())
def test_any_mutation_of_a_node_parses_or_is_a_remote_error(data: st.DataObject) -> None:
    _, entry = write(bytes(100), 10, 3)
    block = bytearray(write(bytes(100), 10, 3)[0][entry.cid])
    block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    cid = Cid.of(DAG_PB, bytes(block))
    try:
        leaves(cid, {cid: bytes(block)}.get)
    except RemoteError:
        return
