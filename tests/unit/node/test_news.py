"""News: what is told is verified as if it had been asked for, and only what is true makes the box look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh.hints.grapevine import Grapevine
from farcast.node import news as module
from farcast.node.catalog.replica import Replica, catalog_name
from farcast.node.news import News, Own, Teller
from farcast.node.whereabouts import RETELL_MS, STALE_MS
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.directory import Directory, Endpoint, RelayRecord, seal_directory
from farcast.protocol.errors import UnreachableError
from farcast.protocol.hint import Hint, Topic, open_hint
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import Checkpoint, seal
from farcast.protocol.ports import Reply, Source

NET = b"o" * 8
NOW = 1_800_000_000_000
HOUR = 3_600_000
ORIGIN, RELAY, STRANGER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
KEYS = [ORIGIN.key]
RING = Keyring(1, "Acme", ORIGIN.key, KEYS, KEYS, KEYS, KEYS, KEYS, [], [])
NAME = catalog_name(RING)
HOME, MOVED = Endpoint("192.0.2.1", 7_433, web=False), Endpoint("192.0.2.2", 7_433, web=False)


def note(size: int, signer: Identity = ORIGIN, at_ms: int | None = None) -> tuple[bytes, list[bytes]]:
    """Return a checkpoint over so many entries, and the entries."""
    catalog = Catalog()
    for number in range(size):
        catalog.append(Entry(1, "publish", f"film-{number}", Cid.of(RAW, bytes([number])).encode(), number))
    head = Checkpoint(NAME, size, catalog.root, size if at_ms is None else at_ms)
    return seal(head, NAME, signer), list(catalog.entries)


def own(at_ms: int = NOW, endpoint: Endpoint = HOME, signer: Identity = RELAY) -> Own:
    """Return what a relay says of itself."""
    record = RelayRecord(1, signer.key, [endpoint], "", at_ms, at_ms + 24 * HOUR)
    return Own(record, signer.seal("record", record))


class Line:
    """A dialler on which boxes answer at some addresses only."""

    def __init__(self) -> None:
        self.answering: set[tuple[str, bytes]] = set()
        self.dialled: list[str] = []

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 0,
        timeout_s: float = 0.0,
    ) -> Reply:
        """Answer where somebody with that key is."""
        del method, path, body, headers, limit_bytes, timeout_s
        self.dialled.append(source.address)
        if (source.address, source.key) not in self.answering:
            raise UnreachableError("nobody answers", reason="refused")
        return Reply(200, {}, b"ok\n")


class Ear:
    """A carrier that remembers what it was given to tell."""

    way = "ear"

    def __init__(self) -> None:
        self.told: list[Hint] = []

    async def tell(self, hints: Sequence[bytes]) -> None:
        """Remember."""
        self.told += map(open_hint, hints)

    def mute(self, teller: str) -> None:
        """Do nothing."""


class Post:
    """A follower at the first of three entries, with one listed relay, and all around it."""

    def __init__(self, folder: Path) -> None:
        self.registry = CollectorRegistry()
        self.replica = Replica(folder, lambda: RING)
        first, entries = note(1)
        self.replica.advance(first, 0, entries)
        listed = Directory(1, NOW - HOUR, NOW + 24 * HOUR, [own(NOW - HOUR).signed])
        self.replica.accept_directory(seal_directory(listed, ORIGIN))
        self.vine, self.ear, self.line = Grapevine(NET, self.registry), Ear(), Line()
        self.vine.carriers.append(self.ear)
        self.looks = 0
        self.news = News(self.vine, self.replica, self.line, self.look, lambda: NOW, self.registry)

    def look(self) -> None:
        """Count a look; nobody has anything."""
        self.looks += 1

    def hear(self, topic: Topic, news: bytes, teller: str = "ann") -> str:
        """Let somebody tell."""
        return self.vine.hear(encode(Hint(1, NET, topic, news)), "http", teller)

    def count(self, topic: str, result: str) -> float:
        """Return how many hints turned out so."""
        labels = {"topic": topic, "result": result}
        return self.registry.get_sample_value("farcast_node_hints_total", labels) or 0.0

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the tasks do."""
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110 - what is waited for happens elsewhere
                await asyncio.sleep(0)


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.setattr(module, "CHASE_S", (0.0, 0.0))
    return Post(tmp_path)


@asynccontextmanager
async def listening(post: Post) -> AsyncGenerator[None]:
    """Listen and tell meanwhile."""
    tasks = [asyncio.ensure_future(post.news.run()), asyncio.ensure_future(post.vine.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_newer_head_makes_it_look_until_it_is_here(post: Post) -> None:
    async with listening(post):
        post.hear("head", note(3)[0])
        await post.until(lambda: post.looks == 2)  # nobody had it: once more, and then not again
        assert post.count("head", "news") == 1
        assert post.replica.catalog.size == 1


async def test_the_same_head_signed_later_is_taken_as_it_is(post: Post) -> None:
    async with listening(post):
        post.hear("head", note(1, at_ms=500)[0])
        await post.until(lambda: post.replica.signed_ms == 500)
        post.hear("head", note(1, at_ms=400)[0])
        await post.until(lambda: post.count("head", "known") == 1)
        assert post.replica.signed_ms == 500
        assert post.looks == 0


async def test_who_forges_heads_is_not_heard_any_more(post: Post) -> None:
    async with listening(post):
        for size in (2, 3, 4):
            assert post.hear("head", note(size, STRANGER)[0], "eve") == "taken"
        await post.until(lambda: post.count("head", "bad_signature") == 3)
        assert post.hear("head", note(2)[0], "eve") == "muted"
        assert post.hear("head", note(2)[0], "ann") == "taken"
        await post.until(lambda: post.looks > 0)


async def test_another_history_of_the_same_size_is_refused(post: Post) -> None:
    catalog = Catalog()
    catalog.append(Entry(1, "publish", "other", Cid.of(RAW, b"x").encode(), 1))
    fork = seal(Checkpoint(NAME, 1, catalog.root, 900), NAME, ORIGIN)
    async with listening(post):
        post.hear("head", fork)
        await post.until(lambda: post.count("head", "equivocation") == 1)
        assert post.replica.signed_ms == 1


async def test_a_relay_that_moved_is_used_once_its_key_was_met_and_told_on(post: Post) -> None:
    moved = own(endpoint=MOVED)
    post.line.answering.add(("192.0.2.2:7433", RELAY.key))
    async with listening(post):
        post.hear("relay", moved.signed)
        await post.until(lambda: post.count("relay", "met") == 1)
        assert list(post.news.relays()) == [moved.record]
        await post.until(lambda: post.ear.told == [Hint(1, NET, "relay", moved.signed)])


async def test_a_relay_that_is_not_where_it_says_stays_where_it_was(post: Post) -> None:
    post.line.answering.add(("192.0.2.2:7433", STRANGER.key))
    async with listening(post):
        post.hear("relay", own(endpoint=MOVED).signed)
        await post.until(lambda: post.count("relay", "not_met") == 1)
        assert list(post.news.relays()) == [own(NOW - HOUR).record]
        assert post.line.dialled == ["192.0.2.2:7433"]


async def test_strangers_are_no_relays_and_dial_nobody(post: Post) -> None:
    forged = RELAY.seal("beacon", own(endpoint=MOVED).record)  # in another domain
    async with listening(post):
        post.hear("relay", own(signer=STRANGER).signed)
        post.hear("relay", forged)
        await post.until(lambda: post.count("relay", "unlisted") == post.count("relay", "bad_signature") == 1)
    assert not post.line.dialled
    assert not post.ear.told


async def test_it_tells_a_grown_catalog_once_and_nothing_of_a_new_signature(post: Post) -> None:
    teller = Teller(post.vine, post.replica)
    async with listening(post):
        await teller.look()
        await post.until(lambda: len(post.ear.told) == 1)
        post.replica.advance(note(1, at_ms=500)[0], 1, [])
        await teller.look()
        two, entries = note(2, at_ms=600)
        post.replica.advance(two, 1, entries[1:])
        await teller.look()
        await post.until(lambda: len(post.ear.told) == 2)
        assert [one.news for one in post.ear.told] == [note(1)[0], two]


async def test_a_relay_tells_where_it_is_only_if_others_cannot_know(post: Post) -> None:
    teller = Teller(post.vine, post.replica)
    teller.listed = post.replica.relays
    said = list[Own]()
    async with listening(post):
        for record, is_told in (
            (own(NOW), False),
            (own(NOW + 1, MOVED), True),
            (own(NOW + HOUR, MOVED), False),
            (own(NOW + 1 + RETELL_MS, MOVED), True),
            (own(NOW + STALE_MS), False),
            (own(NOW + STALE_MS + RETELL_MS), True),
        ):
            teller.own = lambda one=record: one  # type: ignore[misc]
            await teller.look()
            said += [record] * is_told
        expected = [Hint(1, NET, "relay", one.signed) for one in said]
        await post.until(lambda: [one for one in post.ear.told if one.topic == "relay"] == expected)
