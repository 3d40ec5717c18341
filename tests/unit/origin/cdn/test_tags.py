"""Cache tags: which answers carry them, and what they cost where no CDN wants them."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.http.exchange import Answer, Exchange
from farcast.node.http.head import Head
from farcast.origin.cdn.tags import TITLES_PER_ANSWER, Tags
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.unixfs import Entry as Link
from farcast.protocol.unixfs import FileWriter, directory

PUBLISHER = Identity(b"\x05" * 32)
KEY = PUBLISHER.key


def keyring() -> Keyring:
    return Keyring(1, "Acme", KEY, [KEY], [KEY], [KEY], [KEY], [KEY], [], [])


class Heads:
    """A catalog that grows by hand."""

    def __init__(self) -> None:
        self.catalog = Catalog()

    def checkpoint(self) -> bytes | None:
        """Return none: nothing here reads it."""
        return None

    def directory(self) -> bytes | None:
        """Return none: nothing here reads it."""
        return None

    def beacons(self) -> list[bytes]:
        """Return none: nothing here reads them."""
        return []


class Shelf:
    """A library of titles made of named files, and the tags of its blocks."""

    def __init__(self, home: Path, *headers: str) -> None:
        self.heads = Heads()
        self.store = DiskStore(home, 100_000_000, CollectorRegistry())
        self.tags = Tags(Library(self.heads, self.store, keyring), self.fetch, headers)

    async def fetch(self, cid: Cid) -> bytes:
        """Bring nothing: all there is, is in the store."""
        raise RefusedError(f"{cid} is not here", status=404)

    def publish(self, title: str, *names: str) -> set[Cid]:
        """Publish a title with one file of each name, and return its blocks, the manifest among them."""
        files: dict[str, Link] = {}
        cids: set[Cid] = set()
        for name in names:
            writer = FileWriter()
            blocks = writer.push(name.encode() * 100)
            rest, files[name] = writer.finish()
            for cid, data in (*blocks, *rest):
                self.store.put(cid, data)
                cids.add(cid)
        root, data, _ = directory(files)
        self.store.put(root, data)
        manifest = Manifest(
            1, title, 1, PUBLISHER.key, title, "", "en", 1, root.encode(), 1, [], [], Window(0, 0), [],
            [Payee("ada", 10_000)], "open", None, 0, b"",
        )  # fmt: skip
        cid, block = seal_manifest(manifest, PUBLISHER)
        self.store.put(cid, block)
        self.heads.catalog.append(Entry(1, "publish", title, cid.encode(), 0))
        return {*cids, root, cid}

    async def answer(self, path: str, status: int = 200) -> dict[str, str]:
        """Return the headers that the handler answers, which the fast path answers too."""

        async def handle(_: Exchange) -> Answer:
            return Answer(status, {"etag": '"x"'}, b"x")

        async def no_body(_: int) -> bytes:
            return b""

        fields = {"host": "127.0.0.1"}
        exchange = Exchange.of("GET", path, fields, peer="192.0.2.1", secure=False, reader=no_body)
        slow = await self.tags.handler(handle)(exchange)
        head = Head("GET", path, path.partition("?")[0], "", "127.0.0.1", fields, True, 0, 0)
        quick = self.tags.lookup(lambda _: Answer(status, {"etag": '"x"'}, b"x"))(head)
        assert quick == slow
        return slow.headers


async def test_blocks_and_files_of_a_title_carry_its_tag_in_each_header_that_a_cdn_reads(
    tmp_path: Path,
) -> None:
    shelf = Shelf(tmp_path, "cache-tag", "cdn-tag")
    blocks = shelf.publish("film", "a", "b")
    await shelf.tags.refresh()
    tagged = {"etag": '"x"', "cache-tag": "farcast-film", "cdn-tag": "farcast-film"}
    for path in (*(f"/ipfs/{cid}?format=raw" for cid in blocks), "/watch/film/a"):
        assert await shelf.answer(path) == tagged
    for path in (f"/ipfs/{Cid.of(RAW, b'other')}?format=raw", "/ipfs/nonsense", "/v1/beacons"):
        assert await shelf.answer(path) == {"etag": '"x"'}
    assert await shelf.answer("/watch/film/a", 404) == {"etag": '"x"'}


async def test_a_block_of_several_titles_names_them_all_until_they_are_too_many(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "cdn-tag")
    shared = set[Cid]()
    for number in range(TITLES_PER_ANSWER):
        shared = shelf.publish(f"film-{number}", "shared", f"own-{number}")
    await shelf.tags.refresh()
    counts = {len(shelf.tags.of(f"/ipfs/{cid}")) for cid in shared}
    assert counts == {1, TITLES_PER_ANSWER}
    path = next(f"/ipfs/{cid}" for cid in shared if len(shelf.tags.of(f"/ipfs/{cid}")) > 1)
    names = (await shelf.answer(path))["cdn-tag"].split(",")
    assert sorted(names) == [f"farcast-film-{number}" for number in range(TITLES_PER_ANSWER)]
    before = shelf.tags.version
    shelf.publish("one-more", "shared")
    await shelf.tags.refresh()
    assert shelf.tags.version == before + 1
    assert await shelf.answer(path) == {"etag": '"x"'}


async def test_a_title_that_left_the_list_has_no_tag_and_nothing_is_read_twice(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "cdn-tag")
    (cid, *_) = shelf.publish("film", "a")
    await shelf.tags.refresh()
    version = shelf.tags.version
    await shelf.tags.refresh()
    assert shelf.tags.version == version
    manifest = shelf.heads.catalog.titles()["film"].manifest
    shelf.heads.catalog.append(Entry(1, "retire", "film", manifest, 0))
    await shelf.tags.refresh()
    assert shelf.tags.of(f"/ipfs/{cid}") == ()


async def test_where_no_cdn_reads_tags_nothing_stands_in_the_way(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.publish("film", "a")
    await shelf.tags.refresh()

    async def handle(_: Exchange) -> Answer:
        return Answer()

    def look(_: Head) -> Answer | None:
        return None

    assert shelf.tags.handler(handle) is handle
    assert shelf.tags.lookup(look) is look
    assert shelf.tags.of("/watch/film/a") == ("film",)
    assert shelf.tags.version == 0
