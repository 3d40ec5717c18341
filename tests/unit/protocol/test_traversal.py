"""Walks over DAGs: what every selection of blocks promises, on random DAGs and on hostile ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol import dagcbor, traversal
from farcast.protocol.cid import DAG_CBOR, DAG_PB, IDENTITY, RAW, Cid
from farcast.protocol.dagpb import Link, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.traversal import Scope, Selection, Span, links_of, resolution, size_of
from farcast.protocol.unixfs import Entry, FileWriter, folder, leaves, resolve

Blocks = dict[Cid, bytes]


def select(
    blocks: Mapping[Cid, bytes], root: Cid, path: Sequence[str] = (), scope: Scope = "all",
    *, span: Span | None = None, dups: bool = False,
) -> list[Cid]:  # fmt: skip
    """Return the blocks of a CAR, in order."""
    walk, found = Selection(root, path, scope, span=span, dups=dups), list[Cid]()
    while walk.wants is not None:
        cid = walk.wants
        if walk.fresh:
            found.append(cid)
        walk.give(blocks[cid])
    return found


def file(blocks: Blocks, data: bytes, chunk: int = 10, width: int = 3) -> Entry:
    writer = FileWriter(chunk, width)
    made = writer.push(data)
    rest, entry = writer.finish()
    blocks.update([*made, *rest])
    return entry


def tree(random: Random) -> tuple[Blocks, Cid, dict[str, bytes]]:
    """Make a random folder with twins in it: its blocks, its root, its files by path."""
    blocks: Blocks = {}
    files: dict[str, bytes] = {}

    def make(prefix: str, depth: int) -> Entry:
        entries: dict[str, Entry] = {}
        for number in range(random.randrange(4)):
            name = f"f{number}"
            files[prefix + name] = bytes([random.randrange(3)]) * random.randrange(90)
            entries[name] = file(blocks, files[prefix + name])
        for number in range(random.randrange(3) if depth else 0):
            entries[f"d{number}"] = make(f"{prefix}d{number}/", depth - 1)
        made, entry = folder(entries)
        blocks.update(made)
        return entry

    return blocks, make("", 3).cid, files


@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_without_duplicates_it_is_the_same_set_once(seed: int) -> None:
    blocks, root, _ = tree(Random(seed))
    every = select(blocks, root, dups=True)
    assert select(blocks, root) == list(dict.fromkeys(every))
    assert set(every) == set(blocks)


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(-100, 100), st.none() | st.integers(-100, 100), st.booleans())
def test_a_span_brings_the_least_that_reads_its_bytes(
    seed: int,
    first: int,
    last: int | None,
    dups: bool,  # noqa: FBT001
) -> None:
    random = Random(seed)
    blocks: Blocks = {}
    data = bytes(random.randrange(3) for _ in range(random.randrange(1, 200)))
    root = file(blocks, data).cid
    span = Span(first, last)
    within = span.within(len(data))
    assert within == expected_range(first, last, len(data))
    chosen = select(blocks, root, scope="entity", span=span, dups=dups)
    every = select(blocks, root, scope="entity", dups=dups)
    assert set(chosen) <= set(every)
    assert dups or len(set(chosen)) == len(chosen)
    assert chosen[0] == root
    if within is None:
        assert chosen == [root]
        return
    needed = {
        leaf.cid
        for leaf in leaves(root, blocks.get)
        if leaf.offset <= within[1] and leaf.offset + leaf.size > within[0]
    }
    assert {cid for cid in chosen if cid.codec == RAW} == needed
    parents = {cid for cid in chosen if cid.codec == DAG_PB}
    assert parents <= {root} | {link for cid in parents for link in links_of(cid, blocks[cid])}


def test_a_node_that_comes_again_is_walked_again_where_only_part_of_it_was_sent() -> None:
    blocks: Blocks = {}
    one, two, three = (bytes([number]) * 10 for number in range(3))
    root = file(blocks, (one + two + three) * 3).cid  # three times the same inner node
    inner = links_of(root, blocks[root])[0]
    leaf = [Cid.of(RAW, part) for part in (one, two, three)]
    span = Span(20, 45)
    assert select(blocks, root, scope="entity", span=span) == [root, inner, leaf[2], leaf[0], leaf[1]]
    twice = select(blocks, root, scope="entity", span=span, dups=True)
    assert twice == [root, inner, leaf[2], inner, leaf[0], leaf[1]]


def expected_range(first: int, last: int | None, size: int) -> tuple[int, int] | None:
    """Say it as Python does: the bytes that exist of a range with both ends in it."""
    start = first if first >= 0 else max(0, size + first)
    stop = size if last is None else last + 1 if last >= 0 else size + last + 1
    held = range(size)[start : max(0, stop)]
    return (held[0], held[-1]) if held else None


@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_path_brings_its_folders_and_then_what_is_below(seed: int) -> None:
    blocks, root, files = tree(Random(seed))
    for path, data in files.items():
        names = path.split("/")
        end = resolve(root, names, blocks.get)
        way = [resolve(root, names[:count], blocks.get) for count in range(len(names))]
        chosen = select(blocks, root, names)
        assert chosen[: len(way)] == way
        assert chosen[len(way) :] == select(blocks, end)
        assert select(blocks, root, names, "block") == [*way, end]
        assert set(select(blocks, root, names, "entity")) == set(chosen)
        walk = resolution(root, names)
        while walk.wants is not None:
            walk.give(blocks[walk.wants])
        assert walk.result.cid == end
        assert walk.result.roots == (*way, end)
        assert size_of(end, blocks[end]) == len(data)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_folders_entity_is_its_own_blocks(seed: int) -> None:
    blocks, root, _ = tree(Random(seed))
    assert select(blocks, root, scope="entity") == [root]
    names = {f"name {number} of {seed}" * 9: Entry(root, 1, 0) for number in range(1_800)}
    shards, entry = folder(names)
    held = blocks | dict(shards)
    assert len(shards) > 1
    assert set(select(held, entry.cid, scope="entity")) == {cid for cid, _ in shards}
    assert select(held, entry.cid, [next(iter(names))], "block")[-1] == root


def test_documents_are_walked_in_their_order_and_paths_end_inside_them() -> None:
    a, b = (Cid.of(RAW, name) for name in (b"a", b"b"))
    document = dagcbor.encode({"films": [{"x": a}, {"x": b}], "top": a})
    root = Cid.of(DAG_CBOR, document)
    blocks = {a: b"a", b: b"b", root: document}
    assert select(blocks, root) == [root, a, b] == select(blocks, root)
    assert select(blocks, root, dups=True) in ([root, a, a, b], [root, a, b, a])
    assert select(blocks, root, ["films"]) == [root, a, b]
    assert select(blocks, root, ["films", "1"]) == [root, b]
    assert select(blocks, root, ["films", "1"], "entity") == [root]
    assert select(blocks, root, ["films", "1", "x"], "entity") == [root, b]
    for path in (
        ["none"],
        ["films", "2"],
        ["films", "-1"],
        ["films", "01x"],
        ["top", "below"],
        ["films", "0", "y"],
    ):
        with pytest.raises(RemoteError) as caught:
            select(blocks, root, path)
        assert caught.value.reason == "not_found"


def test_identity_blocks_are_walked_and_never_wanted() -> None:
    leaf = Cid.of(RAW, b"leaf")
    inner = Cid(DAG_CBOR, dagcbor.encode([leaf]), IDENTITY)
    root = Cid(DAG_PB, encode([Link("x", inner, 1)], b"\x08\x01"), IDENTITY)
    assert select({leaf: b"leaf"}, root) == [leaf]
    assert select({leaf: b"leaf"}, root, ["x", "0"]) == [leaf]
    assert select({}, root, scope="block") == []


def bomb(levels: int, width: int) -> tuple[Blocks, Cid]:
    """Make a DAG of ``levels`` small nodes that names one leaf ``width ** levels`` times."""
    cid, blocks = Cid.of(RAW, b"leaf"), {Cid.of(RAW, b"leaf"): b"leaf"}
    for _ in range(levels):
        data = dagcbor.encode([cid for _ in range(width)])
        cid = Cid.of(DAG_CBOR, data)
        blocks[cid] = data
    return blocks, cid


def test_a_dag_that_names_itself_billions_of_times_is_walked_once() -> None:
    blocks, root = bomb(40, 10)
    assert len(select(blocks, root)) == 41
    with pytest.raises(RemoteError) as caught:
        select(blocks, root, dups=True)
    assert caught.value.reason == "too_large"


def test_links_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traversal, "PENDING_LIMIT", 99)
    blocks, root = bomb(1, 100)
    with pytest.raises(RemoteError) as caught:
        select(blocks, root, dups=True)
    assert caught.value.reason == "too_large"


def test_blocks_looked_at_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traversal, "VISIT_LIMIT", 5)
    blocks: Blocks = {}
    root = file(blocks, bytes(range(200))).cid
    with pytest.raises(RemoteError) as caught:
        select(blocks, root)
    assert caught.value.reason == "too_large"


def test_a_file_that_lies_about_its_sizes_is_refused() -> None:
    blocks: Blocks = {}
    part = file(blocks, bytes(range(30))).cid
    message = b"\x08\x02\x18\x1f\x20\x1f"
    data = encode([Link("", part, 1)], message)
    root = Cid.of(DAG_PB, data)
    with pytest.raises(RemoteError) as caught:
        select(blocks | {root: data}, root, scope="entity")
    assert caught.value.reason == "malformed"


def test_dag_pb_that_is_no_unixfs_has_links_but_no_entity() -> None:
    leaf = Cid.of(RAW, b"leaf")
    data = encode([Link("a/b", leaf, 1)], b"anything")
    root = Cid.of(DAG_PB, data)
    blocks = {leaf: b"leaf", root: data}
    assert select(blocks, root) == [root, leaf]
    assert select(blocks, root, scope="entity") == [root]
    assert size_of(root, data) is None


def test_a_codec_nobody_reads_is_said_so() -> None:
    cid = Cid.of(0x78, b"git")
    with pytest.raises(RemoteError) as caught:
        links_of(cid, b"git")
    assert caught.value.reason == "unknown_codec"
    assert select({cid: b"git"}, cid, scope="block") == [cid]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=120),
    st.sampled_from([RAW, DAG_PB, DAG_CBOR, 0x0129, 0x51, 0x78]),
    st.lists(st.text(max_size=3), max_size=3),
    st.sampled_from(["block", "entity", "all"]),
    st.none() | st.builds(Span, st.integers(-9, 9), st.none() | st.integers(-9, 9)),
    st.booleans(),
)
def test_any_bytes_end_a_walk_or_give_a_remote_error(
    data: bytes,
    codec: int,
    path: list[str],
    scope: Scope,
    span: Span | None,
    dups: bool,  # noqa: FBT001
) -> None:
    try:
        walk = Selection(Cid.of(codec, data), path, scope, span=span, dups=dups)
        for _ in range(20):  # whatever it wants it gets the same bytes: a store is no part of this
            if walk.wants is None:
                break
            walk.give(data)
    except RemoteError:
        return
