"""The gateway over a real store: when it fills, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.http.exchange import Answer, Exchange
from farcast.node.http.head import parse_head
from farcast.node.ipfs import gateway as module
from farcast.node.ipfs.gateway import TrustlessGateway
from farcast.node.routes import PublicRoutes
from farcast.protocol import car
from farcast.protocol.catalog import Entry as CatalogEntry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.unixfs import Entry, FileWriter, folder
from farcast.tests.unit.node.reel import film

ABSENT = Cid.of(RAW, b"nowhere")


class Origin:
    """Where blocks come from when a gateway fills; it remembers who asked for what."""

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.asked: list[tuple[Cid, str | None]] = []

    async def fill(self, cid: Cid, title: str | None) -> bytes:
        """Bring a block, as a relay's fill does."""
        self.asked.append((cid, title))
        if cid not in self.blocks:
            raise RefusedError(f"{cid} is in no title", status=404, reason="not_reachable")
        return self.blocks[cid]


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path, 1 << 24, CollectorRegistry())


def published(origin: Origin) -> tuple[Cid, list[Cid]]:
    """Publish a folder with a file of three parts; returns its root and all blocks in order."""
    writer = FileWriter(100, 4)
    blocks = writer.push(bytes(range(250)))
    rest, entry = writer.finish()
    made, root = folder({"film": entry})
    origin.blocks = dict([*blocks, *rest, *made])
    return root.cid, [root.cid, entry.cid, *(cid for cid, _ in blocks + rest if cid != entry.cid)]


def request(target: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Exchange:
    async def no_body(limit: int) -> bytes:
        return b""[:limit]

    exchange = Exchange.of(
        method, target, {"host": "x", **(headers or {})}, peer="192.0.2.1", secure=False, reader=no_body
    )
    _, _, cid, *path = exchange.path.split("/")
    exchange.match = {"cid": cid, "path": "/".join(path)}
    return exchange


async def whole(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    if isinstance(answer.body, AsyncIterator):
        return b"".join([part async for part in answer.body])
    pytest.fail("file parts are the carrier's to send")


async def refused(work: Awaitable[object], status: int, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        await work
    assert (caught.value.status, caught.value.reason) == (status, reason)


async def test_get_fills_and_head_and_only_if_cached_do_not(store: DiskStore, origin: Origin) -> None:
    root, every = published(origin)
    gateway = TrustlessGateway(store, origin.fill)
    for form in ("raw", "car"):
        target = f"/ipfs/{root}?format={form}"
        only = {"cache-control": "only-if-cached"}
        await refused(gateway.answer(request(target, "HEAD")), 404, "not_held")
        await refused(gateway.answer(request(target, "HEAD", only)), 412, "not_held")
        await refused(gateway.answer(request(target, "GET", only)), 412, "not_held")
        await refused(gateway.answer(request(f"/ipfs/{root}/film?format={form}", "HEAD")), 404, "not_held")
    assert origin.asked == []
    answer = await gateway.answer(request(f"/ipfs/{root}?format=car", headers={"farcast-title": "f"}))
    reader = car.Reader()
    assert [cid for cid, _ in reader.push(await whole(answer))] == every
    reader.finish()
    assert {title for _, title in origin.asked} == {"f"}
    assert {cid for cid, _ in origin.asked} == set(every)


async def test_head_of_a_held_root_only_if_cached_reads_no_disk(
    store: DiskStore, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = published(origin)
    store.put(root, origin.blocks[root])
    gateway = TrustlessGateway(store, origin.fill)

    def read(_: Cid) -> None:
        pytest.fail("the disk was read")

    monkeypatch.setattr(store, "get", read)
    monkeypatch.setattr(store, "recheck", read)
    for form in ("raw", "car"):
        only = {"cache-control": "only-if-cached"}
        answer = await gateway.answer(request(f"/ipfs/{root}?format={form}", "HEAD", only))
        assert answer.status == 200
    assert origin.asked == []


async def test_what_no_root_reaches_is_the_fills_to_refuse(store: DiskStore, origin: Origin) -> None:
    gateway = TrustlessGateway(store, origin.fill)
    for form in ("raw", "car"):
        await refused(gateway.answer(request(f"/ipfs/{ABSENT}?format={form}")), 404, "not_reachable")
        await refused(gateway.answer(request(f"/ipfs/{ABSENT}/a?format={form}")), 404, "not_reachable")


async def test_a_child_that_does_not_come_breaks_the_stream(store: DiskStore, origin: Origin) -> None:
    root, every = published(origin)
    del origin.blocks[every[-1]]
    gateway = TrustlessGateway(store, origin.fill)
    answer = await gateway.answer(request(f"/ipfs/{root}?format=car"))
    assert answer.status == 200
    assert answer.length is None
    await refused(whole(answer), 404, "not_reachable")
    ranged = await gateway.answer(request(f"/ipfs/{root}/film?format=car&entity-bytes=0:99"))
    assert len(car.Reader().push(await whole(ranged))) == 3


async def test_what_is_denied_is_gone_alone_on_a_path_and_inside_a_car(
    store: DiskStore, origin: Origin
) -> None:
    root, every = published(origin)
    for cid, data in origin.blocks.items():
        store.put(cid, data)
    gone: set[Cid] = set()
    gateway = TrustlessGateway(store, origin.fill, gone.__contains__)
    raw = f"/ipfs/{every[1]}?format=raw"
    head = parse_head(f"GET {raw} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert head is not None
    assert gateway.lookup(head) is not None
    gone.add(every[1])
    assert gateway.lookup(head) is None
    for target in (
        raw,
        f"/ipfs/{every[1]}?format=car",
        f"/ipfs/{root}/film?format=raw",
        f"/ipfs/{root}/film?format=car",
    ):
        for method in ("GET", "HEAD"):
            await refused(gateway.answer(request(target, method)), 410, "denied")
    other = Cid(RAW, every[1].digest)  # the same bytes under another codec are as denied
    await refused(gateway.answer(request(f"/ipfs/{other}?format=raw")), 410, "denied")
    await refused(gateway.answer(request(f"/ipfs/{other}?format=car")), 410, "denied")
    answer = await gateway.answer(request(f"/ipfs/{root}?format=car"))
    await refused(whole(answer), 410, "denied")


async def test_a_damaged_block_is_dropped_and_comes_anew(store: DiskStore, origin: Origin) -> None:
    root, every = published(origin)
    for cid, data in origin.blocks.items():
        store.put(cid, data)
    place = store.path(every[-1])
    assert place is not None
    await asyncio.to_thread(Path(place[0]).write_bytes, b"x" * place[1])
    gateway = TrustlessGateway(store, origin.fill)
    answer = await gateway.answer(request(f"/ipfs/{root}?format=car"))
    assert [cid for cid, _ in car.Reader().push(await whole(answer))] == every
    assert origin.asked == [(every[-1], None)]


async def test_cars_at_once_are_bounded_and_counted_down(
    store: DiskStore, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CARS_AT_ONCE", 2)
    root, _ = published(origin)
    gateway = TrustlessGateway(store, origin.fill)
    target = f"/ipfs/{root}?format=car"
    answers = [await gateway.answer(request(target)) for _ in range(2)]
    streams = [answer.body for answer in answers]
    for stream in streams:
        assert isinstance(stream, AsyncIterator)
        await anext(stream)
    with pytest.raises(RefusedError) as caught:
        await gateway.answer(request(target))
    assert (caught.value.status, caught.value.reason) == (429, "too_many_cars")
    assert caught.value.retry_after_s
    for stream in streams:
        await stream.aclose()  # type: ignore[union-attr]
    assert (await gateway.answer(request(target))).status == 200


async def test_all_cars_together_remember_only_so_many_blocks(
    store: DiskStore, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, every = published(origin)
    monkeypatch.setattr(module, "WALKED_LIMIT", len(every) + 2)
    gateway = TrustlessGateway(store, origin.fill)
    target = f"/ipfs/{root}?format=car"
    slow = (await gateway.answer(request(target))).body
    assert isinstance(slow, AsyncIterator)
    for _ in range(4):  # its header and three blocks
        await anext(slow)
    await refused(whole(await gateway.answer(request(target))), 429, "too_many_cars")
    assert len([part async for part in slow]) == len(every) - 3
    assert len(car.Reader().push(await whole(await gateway.answer(request(target))))) == len(every)


async def test_large_nodes_do_not_hold_up_the_loop(store: DiskStore, origin: Origin) -> None:
    names = {f"name {number:05}": Entry(ABSENT, 1, 1) for number in range(3_000)}
    made, entry = folder(names)
    for cid, data in made:
        store.put(cid, data)
    gateway = TrustlessGateway(store, origin.fill)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    heart = asyncio.ensure_future(beat())
    answer = await gateway.answer(request(f"/ipfs/{entry.cid}?format=car&dag-scope=entity"))
    assert len(car.Reader().push(await whole(answer))) == 1
    heart.cancel()
    assert beats > 10


async def test_a_manifest_that_the_catalog_denies_is_gone(store: DiskStore, origin: Origin) -> None:
    reel = film()
    for cid, data in reel.blocks.items():
        store.put(cid, data)
    manifest = reel.catalog.listed("film")
    assert manifest is not None
    routes = PublicRoutes(
        store, reel.library(store), reel, origin.fill, dict, lambda _: [],
        cors=False, denied=lambda cid: cid in reel.catalog.denied(),
    )  # fmt: skip
    target = f"/ipfs/{manifest.cid}?format=raw"
    head = parse_head(f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert head is not None
    assert routes.lookup(head) is not None
    assert (await routes.block(request(target))).status == 200
    reel.catalog.append(CatalogEntry(1, "deny", "film", manifest.cid.encode(), 0))
    assert routes.lookup(head) is None
    await refused(routes.block(request(target)), 410, "denied")
