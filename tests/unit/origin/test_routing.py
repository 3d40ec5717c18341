from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.origin import reach
from farcast.origin.accounts import Accounts
from farcast.origin.roster import Roster
from farcast.origin.routing import Routing
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import DAG_PB, RAW, Cid
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.unixfs import FileWriter, directory

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
BOX, CATALOG, PUBLISHER = (Identity(bytes((number,)) * 32) for number in (1, 2, 3))
RELAYS = [Identity(bytes((9, number)) * 16) for number in range(120)]


class World:
    """An origin's catalog, directory and blocks, behind its routing; the clock stands until it is set."""

    def __init__(self, home: Path) -> None:
        self.now_ms = NOW_MS
        self.catalog = Catalog()
        self.registry = CollectorRegistry()
        self.accounts = Accounts(home / "accounts.db")
        self.roster = Roster(self.accounts, CATALOG)
        self.store = DiskStore(home, 100_000_000, self.registry)
        keys = [BOX.key]
        endpoints = [Endpoint("203.0.113.1", 7433, web=False), Endpoint("films.example", 7433, web=False)]
        keyring = Keyring(1, "Acme", BOX.key, [CATALOG.key], keys, keys, keys, [PUBLISHER.key], endpoints, [])
        self.library = Library(self, self.store, lambda: keyring)
        self.denied = set[Cid]()
        routing = Routing(
            self, self.library, self.held, lambda: keyring, lambda: self.now_ms, self.registry,
            self.denied.__contains__,
        )  # fmt: skip
        self.router = Router(Hosts())
        routing.add_to(self.router)

    def checkpoint(self) -> bytes | None:
        """Return none: nobody follows this catalog."""
        return None

    def beacons(self) -> list[bytes]:
        """Return none, likewise."""
        return []

    def directory(self) -> bytes | None:
        """Return the roster's."""
        return self.roster.directory()

    async def held(self, cid: Cid) -> bytes:
        """Return a block of the store."""
        data = self.store.get(cid)
        if data is None:
            raise RefusedError("not here", status=404)
        return data

    def publish(self, title: str, *, size_bytes: int = 3 << 20, version: int = 1) -> tuple[Cid, Cid, Cid]:
        """List a title of one file; returns manifest, root and the file's first block."""
        writer = FileWriter()
        blocks = writer.push(Random(f"{title}{version}").randbytes(size_bytes))
        last, file = writer.finish()
        root, data, _ = directory({"film.bin": file})
        manifest = Manifest(
            1, title, version, PUBLISHER.key, title, "", "en", 60_000, root.encode(), size_bytes, [], [],
            Window(0, 0), [], [Payee("ada", 10_000)], "open", None, 0, b"",
        )  # fmt: skip
        sealed = seal_manifest(manifest, PUBLISHER)
        for cid, block in [*blocks, *last, (root, data), sealed]:
            self.store.put(cid, block)
        self.change("publish" if version == 1 else "supersede", title, sealed[0])
        return sealed[0], root, blocks[0][0]

    def change(self, action: Any, title: str, manifest: Cid) -> None:  # noqa: ANN401 - a catalog action
        """Append an entry; each is a second later than the last."""
        at_ms = self.now_ms + 1_000 * self.catalog.size
        self.catalog.append(Entry(1, action, title, manifest.encode(), at_ms))

    def enrol(self, *relays: Identity, ttl_ms: int = 24 * HOUR_MS) -> None:
        """Approve relays, each at an address of its own."""
        for number, relay in enumerate(relays):
            endpoints = [Endpoint(f"9.9.9.{number}", 7433, web=False)]
            record = RelayRecord(1, relay.key, endpoints, "", self.now_ms, self.now_ms + ttl_ms)
            token = self.accounts.invite("relay", self.now_ms)
            self.roster.enrol(token, relay.seal("record", record), relay.key, self.now_ms)
        self.roster.sign(self.now_ms)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Make one request."""

        async def read(limit_bytes: int) -> bytes:
            del limit_bytes
            return b""

        headers = {"host": "203.0.113.1:7433", **headers}
        exchange = Exchange.of(method, path, headers, peer="192.0.2.1", secure=False, reader=read)
        return await self.router.handle(exchange)

    async def named(self, cid: Cid, query: str = "") -> list[str]:
        """Return the ids of those named for ``cid``."""
        answer = await self.ask(f"/routing/v1/providers/{cid}{query}")
        assert answer.status == 200, answer
        assert isinstance(answer.body, bytes)
        return [one["ID"] for one in json.loads(answer.body)["Providers"]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()
    world.accounts.close()


async def test_relays_are_named_before_the_origin_where_a_title_begins(world: World) -> None:
    manifest, root, leaf = world.publish("film")
    world.enrol(*RELAYS[:2])
    ids = {relay.peer_id for relay in RELAYS[:2]}
    for cid in (manifest, root):
        *relays, origin = await world.named(cid)
        assert (set(relays), origin) == (ids, BOX.peer_id)
    origin, *relays = await world.named(leaf)
    assert (set(relays), origin) == (ids, BOX.peer_id)
    assert await world.named(Cid(DAG_PB, leaf.digest)) == [origin, *relays]  # routing goes by the hash


async def test_nobody_is_named_for_what_no_listed_title_has(world: World) -> None:
    stranger = Cid.of(RAW, b"somebody else's")
    world.store.put(stranger, b"somebody else's")
    manifest, root, leaf = world.publish("film")
    assert await world.named(stranger) == []
    assert await world.named(Cid.parse("bafkqaaa")) == []
    _, newer, fresh = world.publish("film", version=2)
    assert await world.named(root) == await world.named(leaf) == []
    assert await world.named(newer) == await world.named(fresh) == [BOX.peer_id]
    world.denied.add(fresh)
    assert await world.named(fresh) == []
    world.change("deny", "film", manifest)
    assert await world.named(newer) == []
    counted = [
        world.registry.get_sample_value("farcast_origin_routing_answers_total", {"result": result})
        for result in ("found", "unknown")
    ]
    assert counted == [2, 6]


async def test_a_relay_is_named_while_its_record_holds_and_it_is_approved(world: World) -> None:
    _, root, _ = world.publish("film")
    world.enrol(RELAYS[0], ttl_ms=HOUR_MS)
    world.enrol(RELAYS[1])
    assert len(await world.named(root)) == 3
    world.now_ms += 2 * HOUR_MS
    assert await world.named(root) == [RELAYS[1].peer_id, BOX.peer_id]
    world.roster.judge(RELAYS[1].peer_id, "refused")
    world.roster.sign(world.now_ms)
    assert await world.named(root) == [BOX.peer_id]


async def test_at_most_a_hundred_are_named_and_the_origin_is_one_of_them(world: World) -> None:
    _, root, leaf = world.publish("film")
    world.enrol(*RELAYS)
    for cid in (root, leaf):
        ids = await world.named(cid)
        assert len(ids) == len(set(ids)) == 100
        assert BOX.peer_id in ids
    assert await world.named(root, "?filter-addrs=tls") == []
    assert (
        len(await world.named(root, "?filter-addrs=ip4&filter-protocols=transport-ipfs-gateway-http")) == 100
    )


async def test_answers_are_json_unless_lines_are_asked_for_by_name(world: World) -> None:
    _, root, _ = world.publish("film")
    path = f"/routing/v1/providers/{root}"
    plain = await world.ask(path, accept="application/json, */*")
    assert plain.headers["content-type"] == "application/json"
    assert (plain.headers["vary"], plain.headers["access-control-allow-origin"]) == ("accept", "*")
    lines = await world.ask(path, accept="Application/X-NDJSON;q=0.9, application/json")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert isinstance(lines.body, bytes)
    assert isinstance(plain.body, bytes)
    assert [json.loads(line) for line in lines.body.splitlines()] == json.loads(plain.body)["Providers"]
    refused = await world.ask(path, accept="application/x-ndjson; q=0, application/json")
    assert refused.headers["content-type"] == "application/json"
    nothing = await world.ask("/routing/v1/providers/bafkqaaa", accept="application/x-ndjson")
    assert (nothing.status, nothing.body) == (200, b"")
    assert nothing.headers["cache-control"] == "public, max-age=15"
    assert "max-age=300" in lines.headers["cache-control"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/routing/v1/providers/hello", 422),
        ("GET", f"/routing/v1/providers/{'b' * 400}", 422),
        ("HEAD", "/routing/v1/providers/bafkqaaa", 200),
        ("OPTIONS", "/routing/v1/providers/bafkqaaa", 204),
        ("GET", f"/routing/v1/peers/{BOX.peer_id}", 501),
        ("GET", "/routing/v1/ipns/k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8", 501),
        ("PUT", "/routing/v1/providers", 501),
    ],
)
async def test_the_rest_of_the_interface_says_no_as_specified(
    world: World, method: str, path: str, status: int
) -> None:
    answer = await world.ask(path, method)
    assert answer.status == status
    if status < 300:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "GET" in answer.headers["access-control-allow-methods"]


async def test_past_the_limit_the_oldest_titles_are_known_by_root_and_manifest_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "BLOCKS_LIMIT", 8)
    old = world.publish("old")
    assert await world.named(old[2]) == [BOX.peer_id]
    new = world.publish("new")
    assert await world.named(old[2]) == []
    for cid in (*new, *old[:2]):
        assert await world.named(cid) == [BOX.peer_id]
    assert world.registry.get_sample_value("farcast_origin_routing_blocks") == 8
    huge = world.publish("huge", size_bytes=20 << 20)
    assert await world.named(huge[2]) == []
    assert await world.named(huge[1]) == await world.named(new[2]) == [BOX.peer_id]


async def test_a_title_that_cannot_be_read_leaves_the_others_known(world: World) -> None:
    _, root, _ = world.publish("film")
    broken, lost, _ = world.publish("broken")
    world.store.drop(broken)
    assert await world.named(lost) == []
    assert await world.named(root) == [BOX.peer_id]


async def test_what_is_listed_again_after_a_takedown_stays_out_of_reach_and_harms_nobody(
    world: World,
) -> None:
    manifest, root, _ = world.publish("film")
    _, other, _ = world.publish("other")
    world.change("deny", "film", manifest)
    world.change("publish", "film", manifest)
    assert await world.named(root) == []
    assert await world.named(other) == [BOX.peer_id]
