"""The embargo before handlers and look-ups: what it lets through, what it refuses, and what it remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.denyfiles import DenyFiles
from farcast.node.catalog.embargo import Embargo
from farcast.node.catalog.takedown import Takedown
from farcast.node.http.exchange import Answer, Exchange
from farcast.node.http.head import Head, parse_head
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError, UsageError
from farcast.tests.unit.node.reel import film


class Rig:
    """A film in a store, a deny file, and a handler that answers everything."""

    def __init__(self, home: Path) -> None:
        self.reel = film(segments=3)
        self.registry = CollectorRegistry()
        self.store = DiskStore(home, 100_000_000, self.registry)
        for cid, data in self.reel.blocks.items():
            self.store.put(cid, data)
        self.file = home / "ours.deny"
        self.file.write_text("# nothing yet\n")
        self.library = self.reel.library(self.store)
        self.takedown = Takedown(home / "takedown", self.reel, self.store, self.registry)
        self.files = DenyFiles([str(self.file)], self.registry)
        self.embargo = Embargo(self.library, self.takedown, self.files, self.registry)
        self.handled: list[str] = []
        self.closed = False
        self.guarded = self.embargo.guard(self._handle)
        self.looked = self.embargo.lookup(lambda head: Answer(200, {}, head.path.encode()))

    async def _handle(self, exchange: Exchange) -> Answer:
        self.handled.append(exchange.path)
        if "title" in exchange.match:
            await self.library.plan(exchange.match["title"], exchange.match["path"], self.never)
        return Answer(200, {"content-length": "1"}, self.body())

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Send a byte, and note when it is let go of."""
        try:
            yield b"x"
        finally:
            self.closed = True

    async def never(self, cid: Cid) -> bytes:
        """Fetch nothing: all of it is here."""
        raise AssertionError(cid)

    def deny(self, *lines: str) -> None:
        """Write other rules, and have them read."""
        self.file.write_text("".join(f"{line}\n" for line in lines))
        self.files.refresh()

    async def ask(self, path: str) -> int:
        """Return the status of a request."""
        exchange = Exchange.of("GET", path, {"host": "x"}, peer="", secure=False, reader=_nothing)
        kind, name, *below = exchange.segments
        exchange.match = {"title" if kind == "watch" else "cid": name, "path": "/".join(below)}
        try:
            return (await self.guarded(exchange)).status
        except RefusedError as error:
            return error.status

    def fast(self, path: str) -> bool:
        """Say whether the fast path answers."""
        head: Head | None = parse_head(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert head is not None
        return self.looked(head) is not None


async def _nothing(limit_bytes: int) -> bytes:
    del limit_bytes
    return b""


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()


SEGMENT = "/watch/film/v0/seg-00001.m4s"


async def test_with_nothing_denied_everything_goes_through(rig: Rig) -> None:
    assert await rig.ask(SEGMENT) == 200
    assert rig.fast(SEGMENT)
    assert not rig.embargo.bars(rig.reel.cids("v0/seg-00001.m4s")[0], "")


async def test_a_denied_block_denies_its_file_on_both_paths_whatever_came_first(rig: Rig) -> None:
    leaf = rig.reel.cids("v0/seg-00001.m4s")[1]
    rig.deny(f"/ipfs/{leaf}")
    assert rig.fast(SEGMENT), "its parts are not known yet, so the fast path has nothing to send either"
    assert await rig.ask(SEGMENT) == 410
    assert not rig.fast(SEGMENT)
    assert await rig.ask(f"/ipfs/{leaf}") == 410
    assert not rig.fast(f"/ipfs/{leaf}")
    assert await rig.ask("/watch/film/v0/seg-00002.m4s") == 200
    assert rig.embargo.bars(leaf, "film")
    assert rig.registry.get_sample_value("farcast_node_embargoed_answers_total", {"by": "file"}) == 2


async def test_a_path_rule_denies_before_the_handler_is_asked(rig: Rig) -> None:
    root = rig.library.manifest("film").root_cid
    rig.deny(f"/ipfs/{root}/v0/*", f"!/ipfs/{root}/v0/seg-00002.m4s")
    assert await rig.ask(SEGMENT) == 410
    assert await rig.ask(f"/ipfs/{root}/v0/seg-00000.m4s") == 410
    assert not rig.handled
    assert await rig.ask("/watch/film/v0/seg-00002.m4s") == 200
    assert await rig.ask(f"/ipfs/{root}") == 200


async def test_rules_that_change_change_the_verdicts(rig: Rig) -> None:
    assert await rig.ask(SEGMENT) == 200
    assert rig.fast(SEGMENT)
    before = rig.embargo.epoch()
    rig.deny(f"/ipfs/{rig.reel.cids('v0/seg-00001.m4s')[0]}")
    assert rig.embargo.epoch() != before
    assert not rig.fast(SEGMENT)
    rig.deny("# all is well again")
    assert rig.fast(SEGMENT)
    assert await rig.ask(SEGMENT) == 200


async def test_what_is_taken_down_is_refused_unless_a_listed_title_reaches_it(rig: Rig) -> None:
    leaf, root = rig.reel.cids("v0/seg-00001.m4s")[0], rig.library.manifest("film").root_cid
    entry = rig.reel.catalog.titles()["film"]
    rig.reel.catalog.append(Entry(1, "deny", "film", entry.manifest, 0))
    await asyncio.to_thread(rig.takedown.enforce)
    for path in (f"/ipfs/{leaf}", f"/ipfs/{root}/v0/seg-00001.m4s", f"/ipfs/{entry.cid}"):
        assert await rig.ask(path) == 410
        assert not rig.fast(path)
    assert await rig.ask(SEGMENT) == 410
    assert rig.embargo.bars(leaf, "film")
    assert not rig.embargo.bars(leaf, "film") or not rig.library.lists("film")

    async def lives(cid: Cid, title: str | None) -> bool:
        return cid == leaf and title is None

    rig.embargo.lives = lives
    assert await rig.ask(f"/ipfs/{leaf}") == 200
    assert await rig.ask(f"/ipfs/{root}") == 410


async def test_an_answer_refused_late_lets_go_of_itsbody(rig: Rig) -> None:
    body = rig.body()
    await anext(body)
    rig.deny(f"/ipfs/{rig.reel.cids('v0/seg-00001.m4s')[0]}")

    async def handle(exchange: Exchange) -> Answer:
        await rig.library.plan(exchange.match["title"], exchange.match["path"], rig.never)
        return Answer(200, {"content-length": "1"}, body)

    rig.guarded = rig.embargo.guard(handle)
    assert await rig.ask(SEGMENT) == 410
    assert rig.closed


def test_a_deny_file_that_cannot_be_read_is_an_error_at_the_start_and_holds_later(rig: Rig) -> None:
    with pytest.raises(UsageError, match=r"\[deny\] files: .*nowhere"):
        DenyFiles(["/nowhere/x.deny"], CollectorRegistry())
    leaf = Cid.of(RAW, b"x")
    rig.deny(f"/ipfs/{leaf}")
    version = rig.files.version
    rig.files.refresh()
    assert rig.files.version == version, "what has not changed is not read again"
    rig.file.unlink()
    rig.files.refresh()
    assert rig.files.denies(leaf)
    rig.file.write_bytes(b"\xff\xfe")
    rig.files.refresh()
    assert rig.files.denies(leaf)
    rig.file.write_text("version: 2\n---\n")
    rig.files.refresh()
    assert rig.files.denies(leaf)
