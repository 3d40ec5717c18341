"""Pinning by CID from gateways that are sound, and from such as lie, stall, stop short or never end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.http.dial import HttpDialer
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.unixfs import Block, Entry, FileWriter, directory
from farcast.relay import gateways
from farcast.relay.gateways import Gateways
from farcast.relay.pinning import LABEL, Pinned, Pinner
from farcast.tests.wire.webserver import WebServer

MIB = 1 << 20
QUOTA_BYTES = 64 * MIB


class Gateway(WebServer):
    """An IPFS gateway that holds ``blocks``, and that may do something else in ``way``."""

    def __init__(self) -> None:
        """Listen on a free port of loopback."""
        super().__init__(_Answer)
        self.blocks: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.way = ""
        self.pause_s = 0.0
        self.start()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        gateway: Any = self.server
        assert isinstance(gateway, Gateway)
        path, _, query = self.path.partition("?")
        assert query == "format=raw"
        name = path.rsplit("/", 1)[1]
        gateway.asked.append(name)
        time.sleep(gateway.pause_s)
        data = gateway.blocks.get(name)
        if data is None or gateway.way.isdigit():
            self.send_response(int(gateway.way or 404))
            self.send_header("content-length", "0")
            self.send_header("location", f"{gateway.url}/elsewhere")
            self.end_headers()
            return
        if gateway.way == "wrong":
            data = bytes((data[0] ^ 1,)) + data[1:]
        self.send_response(200)
        if gateway.way == "endless":
            self.end_headers()
            self.close_connection = True
            while True:
                self.wfile.write(bytes(64 << 10))
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if gateway.way == "short":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif gateway.way == "slow":
            for at in range(len(data)):
                self.wfile.write(data[at : at + 1])
                time.sleep(0.05)
        else:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        del format, args


class Terms:
    """A contract that refuses the next fetches for the reasons given."""

    def __init__(self) -> None:
        """Refuse nothing."""
        self.refusals: list[str] = []

    async def fill(self) -> None:
        """Let a fetch begin, or refuse it."""
        if self.refusals:
            reason = self.refusals.pop()
            raise RefusedError("not now", status=503, retry_after_s=0.01, reason=reason)


@dataclass
class Shelf:
    """A store with a pinner, as a relay has them."""

    dialer: HttpDialer
    registry: CollectorRegistry
    store: DiskStore
    pinner: Pinner
    terms: Terms
    denied: set[Cid]

    @classmethod
    def open(
        cls, home: Path, *bases: str, quota_bytes: int = QUOTA_BYTES, allow_private: bool = True
    ) -> Shelf:
        """Open the home's store and pin from the gateways at ``bases``."""
        registry, dialer = CollectorRegistry(), HttpDialer(allow_private=allow_private)
        home.mkdir(exist_ok=True)
        store = DiskStore(home, quota_bytes, registry)
        terms, denied = Terms(), set[Cid]()
        pinner = Pinner(store, Gateways(bases, dialer, registry), terms.fill, denied.__contains__, registry)
        return cls(dialer, registry, store, pinner, terms, denied)

    async def settled(self, cid: Cid) -> Pinned:
        """Return a pin once it is whole or has stopped."""
        async with asyncio.timeout(30):
            while True:
                found = self.pinner.progress(cid)
                if found.whole or found.error:
                    return found
                await asyncio.sleep(0.01)

    def count(self, name: str, **labels: str) -> float:
        """Return one metric's value."""
        return self.registry.get_sample_value(name, labels) or 0

    async def close(self) -> None:
        """Stop and close everything."""
        await self.pinner.close()
        await self.dialer.close()
        self.store.close()


def folder(*, files: int = 3, mib: int = 2) -> tuple[Cid, dict[str, bytes]]:
    """Make a folder in a folder, of files of so many MiB and a bit."""
    blocks: list[Block] = []
    entries: dict[str, Entry] = {}
    for number in range(files):
        writer = FileWriter()
        blocks += writer.push(os.urandom(mib * MIB + number))
        last, entries[f"{number}.m4s"] = writer.finish()
        blocks += last
    cid, data, entry = directory(entries)
    root, top, _ = directory({"video": entry})
    blocks += [(cid, data), (root, top)]
    return root, {str(cid): data for cid, data in blocks}


@pytest.fixture
def gateway() -> Generator[Gateway]:
    server = Gateway()
    yield server
    server.close()


@pytest.fixture
async def shelf(tmp_path: Path, gateway: Gateway) -> AsyncIterator[Shelf]:
    shelf = Shelf.open(tmp_path / "home", gateway.url)
    yield shelf
    await shelf.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "PAUSE_S", 0.01)


async def test_everything_below_a_cid_is_brought_once_and_pinned(shelf: Shelf, gateway: Gateway) -> None:
    root, gateway.blocks = folder()
    await shelf.pinner.pin(root)
    found = await shelf.settled(root)
    size = sum(map(len, gateway.blocks.values()))
    assert found == Pinned(str(root), len(gateway.blocks), len(gateway.blocks), size, whole=True, error="")
    assert sorted(gateway.asked) == sorted(gateway.blocks)
    assert shelf.store.pinned()[f"{LABEL}{root}"] == sorted(map(Cid.parse, gateway.blocks), key=Cid.encode)
    assert shelf.store.pinned_bytes == size
    assert shelf.count("farcast_relay_pin_bytes_total") == size
    assert shelf.count("farcast_relay_pins", state="whole") == 1
    assert (await shelf.pinner.unpin(root)).whole
    assert (shelf.store.pinned_bytes, shelf.pinner.pins()) == (0, [])
    with pytest.raises(RefusedError, match="not pinned"):
        await shelf.pinner.unpin(root)


async def test_a_pin_that_broke_off_fetches_only_what_is_missing(
    shelf: Shelf, gateway: Gateway, tmp_path: Path
) -> None:
    root, gateway.blocks = folder()
    gateway.pause_s = 0.05
    await shelf.pinner.pin(root)
    while shelf.store.held_blocks < 5:  # noqa: ASYNC110 - a store tells nobody
        await asyncio.sleep(0.01)
    await shelf.close()
    before = set(map(str, shelf.store.cids()))
    gateway.asked.clear()
    again = Shelf.open(tmp_path / "home", gateway.url)
    try:
        await again.pinner.resume()
        assert (await again.settled(root)).whole
        assert sorted(gateway.asked) == sorted(set(gateway.blocks) - before)
        gateway.asked.clear()
        await again.pinner.resume()
        assert again.store.drop(Cid.parse(next(name for name in gateway.blocks if name != str(root))))
        await again.pinner.resume()
        assert (await again.settled(root)).whole
        assert len(gateway.asked) == 1
    finally:
        await again.close()
        shelf.store = DiskStore(tmp_path / "home", QUOTA_BYTES, CollectorRegistry())


@pytest.mark.parametrize(
    ("way", "reason", "words"),
    [
        ("wrong", "hash_mismatch", "sent bytes that are not the block"),
        ("short", "truncated", "http://127.0.0.1"),
        ("endless", "too_large", "over the limit of 2097152 bytes"),
        ("slow", "timeout", "was silent for 0.3 s"),
        ("404", "refused", "answered 404 for"),
        ("302", "refused", "answered 302 for"),
        ("500", "refused", "answered 500 for"),
    ],
)
async def test_a_gateway_that_brings_no_block_ends_in_one_sentence(
    shelf: Shelf, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, way: str, reason: str, words: str
) -> None:
    monkeypatch.setattr(gateways, "BLOCK_S", 0.3 if way == "slow" else 10)
    root, gateway.blocks = folder(files=1)
    gateway.way = way
    await shelf.pinner.pin(root)
    found = await shelf.settled(root)
    assert words in found.error
    assert "\n" not in found.error
    assert (found.whole, shelf.store.held_blocks) == (False, 0)
    assert len(gateway.asked) == (1 if way == "404" else 3)
    assert shelf.count("farcast_relay_pin_rejected_blocks_total", reason=reason) == len(gateway.asked)
    assert shelf.count("farcast_relay_pin_failures_total", reason=reason) == 1
    gateway.way = ""
    await shelf.pinner.pin(root)
    assert (await shelf.settled(root)).whole


async def test_who_lies_is_left_for_who_does_not(tmp_path: Path, gateway: Gateway) -> None:
    liar = Gateway()
    root, gateway.blocks = folder()
    liar.blocks, liar.way = gateway.blocks, "wrong"
    shelf = Shelf.open(tmp_path / "home", liar.url, gateway.url)
    try:
        await shelf.pinner.pin(root)
        assert (await shelf.settled(root)).whole
        assert 3 <= len(liar.asked) <= 3 + 8  # those under way at the third lie
    finally:
        await shelf.close()
        liar.close()


async def test_what_is_too_large_is_refused_before_anything_else_has_to_leave(
    tmp_path: Path, gateway: Gateway
) -> None:
    root, gateway.blocks = folder(files=3, mib=4)
    shelf = Shelf.open(tmp_path / "home", gateway.url, quota_bytes=12 * MIB)
    try:
        cache = [os.urandom(MIB) for _ in range(11)]
        cids = [Cid.of(RAW, data) for data in cache]
        for cid, data in zip(cids, cache, strict=True):
            shelf.store.put(cid, data)
        await shelf.pinner.pin(root)
        found = await shelf.settled(root)
        assert f"{root} needs 125" in found.error
        assert "raise [store] quota_bytes" in found.error
        assert gateway.asked == [str(root)]
        assert all(map(shelf.store.has, cids))
        assert shelf.count("farcast_relay_pin_failures_total", reason="store_full") == 1
    finally:
        await shelf.close()


async def test_what_lies_about_its_size_is_stopped_at_the_share_of_pins(
    tmp_path: Path, gateway: Gateway
) -> None:
    _, gateway.blocks = folder(files=3, mib=4)
    entries = {
        f"{number}": Entry(Cid.parse(name), 1, 0)  # as if each were one byte
        for number, name in enumerate(gateway.blocks)
    }
    root, data, _ = directory(entries)
    gateway.blocks[str(root)] = data
    shelf = Shelf.open(tmp_path / "home", gateway.url, quota_bytes=10 * MIB)
    try:
        kept = os.urandom(100)
        shelf.store.put(Cid.of(RAW, kept), kept)
        await shelf.pinner.pin(root)
        found = await shelf.settled(root)
        assert "bytes more, but of the quota of 10485760 bytes pins may take" in found.error
        assert shelf.store.pinned_bytes <= 9 * MIB
        assert shelf.store.has(Cid.of(RAW, kept))
    finally:
        await shelf.close()


async def test_it_is_off_until_a_gateway_is_named(tmp_path: Path, gateway: Gateway) -> None:
    root, gateway.blocks = folder(files=1)
    shelf = Shelf.open(tmp_path / "home")
    try:
        with pytest.raises(RefusedError, match="pin_from") as caught:
            await shelf.pinner.pin(root)
        assert caught.value.reason == "pinning_off"
    finally:
        await shelf.close()


async def test_a_private_address_is_dialled_only_where_that_is_allowed(
    tmp_path: Path, gateway: Gateway
) -> None:
    root, gateway.blocks = folder(files=1)
    shelf = Shelf.open(tmp_path / "home", gateway.url, allow_private=False)
    try:
        await shelf.pinner.pin(root)
        found = await shelf.settled(root)
        assert (
            found.error == f"{gateway.url} is a private address; set [network] allow_private = true to ask it"
        )
        assert gateway.asked == []
    finally:
        await shelf.close()


async def test_a_pin_waits_for_the_rate_and_stops_where_the_contract_says_no(
    shelf: Shelf, gateway: Gateway
) -> None:
    root, gateway.blocks = folder(files=1)
    shelf.terms.refusals = ["rate_down"] * 5
    await shelf.pinner.pin(root)
    assert (await shelf.settled(root)).whole
    other, gateway.blocks = folder(files=1)
    shelf.terms.refusals = ["hibernating"]
    await shelf.pinner.pin(other)
    assert (await shelf.settled(other)).error == "not now"
    assert str(other) not in gateway.asked


async def test_what_is_taken_down_is_neither_pinned_nor_fetched_with_something_else(
    shelf: Shelf, gateway: Gateway
) -> None:
    root, gateway.blocks = folder(files=2)
    leaf = next(name for name in gateway.blocks if Cid.parse(name).codec == RAW)
    shelf.denied.add(Cid.parse(leaf))
    await shelf.pinner.pin(root)
    assert f"{leaf} is taken down" in (await shelf.settled(root)).error
    assert leaf not in gateway.asked
    shelf.denied.add(root)
    with pytest.raises(RefusedError, match="taken down") as caught:
        await shelf.pinner.pin(root)
    assert caught.value.status == 410
