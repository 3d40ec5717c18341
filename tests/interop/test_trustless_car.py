"""CARs of the trustless gateway, case by case from the specification's text: which blocks, in which order.

Every case is asked twice, with ``format=car`` and with Accept alone, and in both answers every header
that the specification demands of a CAR is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest

from farcast.tests.interop.trustless import CAR, Fixture, Relay, decoder

SINGLE = "subdir-with-two-single-block-files"
MIXED = "subdir-with-mixed-block-files"
HAMT = "single-layer-hamt-with-multi-block-files"
CBOR = "dir-with-dag-cbor-with-links"
HOLED = "file-3k-and-3-blocks-missing-block"
TWINS = "dir-with-duplicate-files"

open_fixture = cache(Fixture)


class Case(NamedTuple):
    """One request and the blocks it must bring; ``root`` other than the fixture's is a path in it."""

    what: str
    fixture: str
    path: tuple[str, ...]
    query: str
    blocks: Callable[[Fixture], list[str]]
    root: tuple[str, ...] = ()


def along(*path: str) -> Callable[[Fixture], list[str]]:
    """Return the blocks of the folders on ``path``, with the one at its end."""
    return lambda fixture: [fixture.at(*path[:count]) for count in range(len(path) + 1)]


def whole(*path: str) -> Callable[[Fixture], list[str]]:
    """Return the path's blocks and all below its end."""
    return lambda fixture: along(*path)(fixture) + list(dict.fromkeys(fixture.below(fixture.at(*path))))


def parts(first: int, last: int | None) -> Callable[[Fixture], list[str]]:
    """Return the root of multiblock.txt and its leaves from ``first`` to before ``last``."""

    def chosen(fixture: Fixture) -> list[str]:
        file = fixture.at("subdir", "multiblock.txt")
        return [file, *fixture.links(file)[first:last]]

    return chosen


def sharded(name: str, *, below: bool) -> Callable[[Fixture], list[str]]:
    """Return the shards that lead to ``name``, its block, and with ``below`` all it reaches."""

    def chosen(fixture: Fixture) -> list[str]:
        file = fixture.at(name)
        return [fixture.root, *fixture.way(fixture.root, name), file, *(fixture.below(file) if below else [])]

    return chosen


def every_shard(fixture: Fixture) -> list[str]:
    return [fixture.root, *fixture.shards(fixture.root)]


def every_block(fixture: Fixture) -> list[str]:
    return list(fixture.data)


def two_blocks(fixture: Fixture) -> list[str]:
    return list(fixture.data)[:2]


def with_part(number: int) -> Callable[[Fixture], list[str]]:
    """Return the root and its numbered leaf."""
    return lambda fixture: [fixture.root, fixture.links(fixture.root)[number]]


def document(*links: int) -> Callable[[Fixture], list[str]]:
    """Return the folder, its dag-cbor document, and the numbered links of the document's files."""

    def chosen(fixture: Fixture) -> list[str]:
        single = decoder.cid_text(decoder.cid_of(0x55, b"hello world\n"))
        multi = next(cid for cid in fixture.data if cid not in (fixture.root, fixture.at("document"), single))
        groups = [[single], [multi, *fixture.below(multi)]]
        return along("document")(fixture) + [cid for number in links for cid in groups[number]]

    return chosen


def without_root(chosen: Callable[[Fixture], list[str]]) -> Callable[[Fixture], list[str]]:
    return lambda fixture: chosen(fixture)[1:]


LONG = "hello-CIDv1_TOO_LONG"
TEXT = ("subdir", "ascii.txt")
FILE = ("subdir", "multiblock.txt")
ENTITY = "dag-scope=entity"

CASES = [
    # pathing
    Case("a file on a path", SINGLE, TEXT, "", whole(*TEXT)),
    Case("a folder on a path", SINGLE, ("subdir",), "", whole("subdir")),
    Case("a folder with a slash behind it", SINGLE, ("subdir", ""), "", whole("subdir")),
    Case("a file in a sharded folder", HAMT, ("685.txt",), "", sharded("685.txt", below=True)),
    Case("a link of a document", CBOR, ("files", "single"), "", without_root(document(0)), ("document",)),
    Case("a file linked by a document", CBOR, ("document", "files", "multiblock"), "", document(1)),
    Case("a map inside a document", CBOR, ("document", "files"), "", document(0, 1)),
    Case("names outside of ASCII", "fixtures-0", ("%C4%85", "%C4%99"), "", whole("ą", "ę")),
    Case(
        "a name with percent signs of its own",
        "dir-with-percent-encoded-filename",
        ("Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt",),
        "",
        whole("Portugal%2C+España=Peninsula Ibérica.txt"),
    ),
    # dag-scope=block
    Case("block: a folder", SINGLE, (), "dag-scope=block", along()),
    Case("block: a folder on a path", SINGLE, ("subdir",), "dag-scope=block", along("subdir")),
    Case("block: a file on a path", SINGLE, TEXT, "dag-scope=block", along(*TEXT)),
    Case("block: a file of parts", MIXED, FILE, "dag-scope=block", along(*FILE)),
    Case("block: in a sharded folder", HAMT, ("1.txt",), "dag-scope=block", sharded("1.txt", below=False)),
    Case("block: a document", CBOR, ("document",), "dag-scope=block", document()),
    Case("block: a map inside a document", CBOR, ("document", "files"), "dag-scope=block", document()),
    # dag-scope=entity
    Case("entity: a folder", SINGLE, (), ENTITY, along()),
    Case("entity: a sharded folder", HAMT, (), ENTITY, every_shard),
    Case("entity: a file of one block", MIXED, TEXT, ENTITY, along(*TEXT)),
    Case("entity: a file of parts", MIXED, FILE, ENTITY, whole(*FILE)),
    Case("entity: a document", CBOR, ("document",), ENTITY, document()),
    Case("entity: a symlink", "symlink", ("bar",), ENTITY, along("bar")),
    # dag-scope=all
    Case("all: a folder of files", MIXED, ("subdir",), "dag-scope=all", whole("subdir")),
    Case("all: a file of parts", MIXED, FILE, "dag-scope=all", whole(*FILE)),
    Case("all: a document and what it links", CBOR, ("document",), "dag-scope=all", document(0, 1)),
    Case("all is what is sent unasked", MIXED, (), "", whole()),
    Case("all: names that no path reaches", "outside-root", (), "", every_block),
    # entity-bytes
    Case("bytes 0:*", MIXED, FILE, f"{ENTITY}&entity-bytes=0:*", whole(*FILE)),
    Case("bytes imply the entity", MIXED, FILE, "entity-bytes=0:*", whole(*FILE)),
    Case("bytes of a folder mean nothing", MIXED, ("subdir",), f"{ENTITY}&entity-bytes=0:1", along("subdir")),
    Case("bytes of a sharded folder mean nothing", HAMT, (), f"{ENTITY}&entity-bytes=0:*", every_shard),
    Case("bytes of a document mean nothing", CBOR, ("document",), f"{ENTITY}&entity-bytes=0:3", document()),
    Case("bytes 512:*", MIXED, (), f"{ENTITY}&entity-bytes=512:*", parts(2, None), FILE),
    Case("bytes 512:1023", MIXED, (), f"{ENTITY}&entity-bytes=512:1023", parts(2, 4), FILE),
    Case("bytes 512:-256", MIXED, (), f"{ENTITY}&entity-bytes=512:-256", parts(2, 4), FILE),
    Case("bytes -5:*", MIXED, (), f"{ENTITY}&entity-bytes=-5:*", parts(3, None), FILE),
    Case("bytes from before the start", MIXED, (), f"{ENTITY}&entity-bytes=-9999:*", parts(0, None), FILE),
    Case("bytes -9999:-3", MIXED, (), f"{ENTITY}&entity-bytes=-9999:-3", parts(0, 4), FILE),
    Case("the first byte", MIXED, (), f"{ENTITY}&entity-bytes=0:0", parts(0, 1), FILE),
    Case("the last byte", MIXED, (), f"{ENTITY}&entity-bytes=1025:1025", parts(4, 5), FILE),
    Case("bytes to behind the end", MIXED, (), f"{ENTITY}&entity-bytes=1000:99999", parts(3, 5), FILE),
    Case("a range of no length", MIXED, (), f"{ENTITY}&entity-bytes=1000:-900", parts(0, 0), FILE),
    Case("bytes of one block", MIXED, TEXT, "entity-bytes=3:5", along(*TEXT)),
    # what is missing does no harm where it is not needed
    Case("a hole behind the range", HOLED, (), f"{ENTITY}&entity-bytes=0:1000", with_part(0)),
    Case("a hole before the range", HOLED, (), f"{ENTITY}&entity-bytes=2200:*", with_part(2)),
    Case("the root of a holed file", HOLED, (), "dag-scope=block", along()),
    # duplicates
    Case("each block once unasked", TWINS, (), "", whole()),
    Case("dag-json is walked", "dag-json-traversal", (), "", every_block),
    Case("dag-cbor is walked", "dag-cbor-traversal", (), "", every_block),
    Case("two documents on a path", "dag-cbor-traversal", ("foo", "link", "bar"), "", every_block),
    Case("two JSON documents", "dag-json-traversal", ("foo", "link"), "dag-scope=block", two_blocks),
    Case("cbor has no links", "plain-cbor", (), "", every_block),
    Case("json has no links", "plain-json", (), "", every_block),
    Case("a block under SHA-512", "fixtures-19", (LONG,), "", along(LONG)),
]  # fmt: skip


@pytest.mark.parametrize("way", ["format", "accept"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_car_has_exactly_these_blocks_in_this_order(relay: Relay, case: Case, way: str) -> None:
    fixture = open_fixture(case.fixture)
    root = fixture.at(*case.root)
    target = "/".join(("/ipfs", root, *case.path))
    if way == "format":
        reply = relay.ask(f"{target}?{'&'.join(filter(None, ('format=car', case.query)))}")
    else:
        reply = relay.ask(f"{target}?{case.query}" if case.query else target, Accept=CAR)
    assert reply.status == 200
    assert reply.blocks == case.blocks(fixture)
    assert decoder.decode("car", reply.body)["roots"] == [root]
    assert reply.headers["content-type"] == f"{CAR}; version=1; order=dfs; dups=n"
    assert reply.headers["content-disposition"] == f'attachment; filename="{root}.car"'
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["accept-ranges"] == "none"
    assert reply.headers["cache-control"] == "public, max-age=29030400, immutable"
    assert reply.headers["etag"].endswith('.car.n"')
    assert reply.headers["x-ipfs-path"].startswith(f"/ipfs/{root}")
    assert reply.headers["x-ipfs-roots"].split(",")[0] == root
    assert reply.head_bytes < 1_500
    located = reply.headers.get("content-location")
    assert (located is None) == (way == "format")
    if located is not None:
        assert relay.ask(located).blocks == reply.blocks


def test_head_says_what_get_would_and_sends_nothing(relay: Relay) -> None:
    for case in CASES[::4]:
        fixture = open_fixture(case.fixture)
        target = f"{'/'.join(('/ipfs', fixture.at(*case.root), *case.path))}?format=car&{case.query}"
        head, get = relay.ask(target, "HEAD"), relay.ask(target)
        assert (head.status, head.body) == (200, b"")
        volatile = {"date", "transfer-encoding"}
        assert {k: v for k, v in head.headers.items() if k not in volatile} == {
            k: v for k, v in get.headers.items() if k not in volatile
        }


@pytest.mark.parametrize(
    ("asked", "dups"),
    [
        ({"Accept": f"{CAR}; version=1; order=dfs; dups=y"}, True),
        ({"Accept": f"{CAR}; version=1; order=dfs; dups=n"}, False),
        ({"Accept": f"{CAR}; version=1; order=unk"}, False),
        ({"Accept": f"{CAR};dups=y"}, True),
        ({"query": "format=car", "Accept": f"{CAR}; order=dfs; dups=y"}, True),
        ({"query": "format=car&car-order=dfs", "Accept": f"{CAR}; order=unk"}, False),
        ({"query": "format=car&car-dups=y", "Accept": f"{CAR}; dups=n"}, True),
        ({"query": "format=car&car-dups=n", "Accept": f"{CAR}; dups=y"}, False),
        ({"query": "car-dups=y", "Accept": CAR}, True),
        ({"query": "format=car&car-version=1&car-order=dfs&car-dups=y"}, True),
    ],
    ids=str,
)
def test_order_and_duplicates_are_agreed_on(relay: Relay, asked: dict[str, str], dups: bool) -> None:  # noqa: FBT001
    twins = open_fixture(TWINS)
    query = asked.get("query", "")
    fields = {name: value for name, value in asked.items() if name != "query"}
    reply = relay.ask(f"/ipfs/{twins.root}{'?' * bool(query)}{query}", **fields)
    assert reply.status == 200
    assert reply.headers["content-type"] == f"{CAR}; version=1; order=dfs; dups={'y' if dups else 'n'}"
    every = [twins.root, *twins.below(twins.root)]
    assert len(every) > len(set(every))
    assert reply.blocks == (every if dups else list(dict.fromkeys(every)))


@pytest.mark.parametrize("dups", ["y", "n"])
@pytest.mark.parametrize("cid", ["bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa", "bafkqaaa"])
def test_the_block_of_an_identity_cid_is_never_in_a_car(relay: Relay, cid: str, dups: str) -> None:
    for target, fields in (
        (f"/ipfs/{cid}", {"Accept": f"{CAR}; dups={dups}"}),
        (f"/ipfs/{cid}?format=car&car-dups={dups}", {}),
    ):
        reply = relay.ask(target, **fields)
        assert (reply.status, reply.blocks) == (200, [])
        assert decoder.decode("car", reply.body)["roots"] == [cid]
        assert f"dups={dups}" in reply.headers["content-type"]
        assert relay.ask(target, "HEAD", **fields).status == 200


@pytest.mark.parametrize("query", ["", "&dag-scope=entity", "&entity-bytes=0:*", "&entity-bytes=1500:1600"])
def test_a_car_with_a_missing_child_ends_abnormally(relay: Relay, query: str) -> None:
    reply = relay.ask(f"/ipfs/{open_fixture(HOLED).root}?format=car{query}")
    assert reply.status == 200
    assert not reply.whole


@pytest.mark.parametrize("way", ["format", "accept"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{single}/subdir/i-do-not-exist", 404),
        ("{single}/subdir/ascii.txt/below", 404),
        ("{single}/" + "/".join(["deep"] * 40), 404),
        ("{hamt}/no-such-name.txt", 404),
        ("{cbor}/document/files/none", 404),
        ("{cbor}/document/cats/0", 404),
        ("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", 404),
        ("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/a", 404),
        ("not-a-cid", 400),
        ("bafkqac", 400),
    ],
)
def test_what_is_not_there_is_said_at_once(relay: Relay, path: str, status: int, way: str) -> None:
    roots = {
        name: open_fixture(one).root for name, one in (("single", SINGLE), ("hamt", HAMT), ("cbor", CBOR))
    }
    target = f"/ipfs/{path.format(**roots)}"
    fields = {"Accept": CAR} if way == "accept" else {}
    for method in ("GET", "HEAD"):
        reply = relay.ask(target + ("?format=car" if way == "format" else ""), method, **fields)
        assert reply.status == status
        assert reply.whole
        assert "immutable" not in reply.headers.get("cache-control", "")


@pytest.mark.parametrize(
    "query",
    [
        "entity-bytes=1026:*", "entity-bytes=5000:6000", "entity-bytes=-5000:-4000", "entity-bytes=9:5",
        "entity-bytes=-5:-9", "entity-bytes=1", "entity-bytes=a:b", "entity-bytes=*:5", "entity-bytes=0:",
        "entity-bytes=99999999999999999999:*", "entity-bytes=-0:*", "dag-scope=some", "dag-scope=",
        "car-dups=x", "car-order=bfs", "car-version=2",
    ],
)  # fmt: skip
def test_a_parameter_that_means_nothing_here_is_refused(relay: Relay, query: str) -> None:
    file = open_fixture(MIXED).at(*FILE)
    assert relay.ask(f"/ipfs/{file}?format=car&{query}").status == 400


def test_the_etag_differs_wherever_the_bytes_do(relay: Relay) -> None:
    mixed = open_fixture(MIXED)
    asked = [
        f"/ipfs/{mixed.root}{path}?format={form}{query}"
        for path in ("", "/subdir", "/subdir/multiblock.txt")
        for form, query in (
            ("raw", ""), ("car", ""), ("car", "&dag-scope=block"), ("car", "&dag-scope=entity"),
            ("car", "&car-dups=y"),
        )
    ]  # fmt: skip
    file = f"/ipfs/{mixed.at(*FILE)}?format=car&entity-bytes="
    asked += [file + span for span in ("0:*", "0:10", "1:*", "-10:*", "0:-10")]
    tags = [relay.ask(target, "HEAD").headers["etag"] for target in asked]
    assert len(set(tags)) == len(tags)
    assert all(tag.startswith('"') for tag in tags)
    assert relay.ask(file + "0:10", "HEAD").headers["etag"].startswith('"entity-')
    unk = relay.ask(f"/ipfs/{mixed.root}?format=car&car-order=unk").headers["etag"]
    assert unk == "W/" + tags[1]
    assert relay.ask(asked[1], If_None_Match=unk).status == 304


def test_a_car_is_sent_whole_whatever_range_is_asked_for(relay: Relay) -> None:
    target = f"/ipfs/{open_fixture(MIXED).root}?format=car"
    reply = relay.ask(target, Range="bytes=0-9")
    assert (reply.status, reply.blocks) == (200, relay.ask(target).blocks)


def test_the_same_car_has_the_same_bytes_each_time(relay: Relay) -> None:
    target = f"/ipfs/{open_fixture(HAMT).root}?format=car"
    assert relay.ask(target).body == relay.ask(target).body


def test_a_cid_stands_in_a_car_in_the_version_its_link_has(relay: Relay) -> None:
    holed = open_fixture(HOLED)
    first = decoder.cid_bytes(holed.links(holed.root)[0])
    old = b"\x12\x20" + first[4:]
    assert old in holed.data[holed.root]  # the link is of version 0
    body = relay.ask(f"/ipfs/{holed.root}?format=car&entity-bytes=0:9").body
    assert (body.count(old), body.count(first)) == (2, 0)
    name = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk"
    assert decoder.cid_text(decoder.cid_bytes(name)) == holed.root
    by_old = relay.ask(f"/ipfs/{name}?format=car&dag-scope=block")
    assert by_old.body.count(b"\x12\x20" + decoder.cid_bytes(holed.root)[4:]) == 2
    assert by_old.headers["x-ipfs-path"] == f"/ipfs/{name}"
    assert relay.ask(f"/ipfs/{name}?format=raw").headers["x-ipfs-path"] == f"/ipfs/{name}"
