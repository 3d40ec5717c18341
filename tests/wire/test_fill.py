"""Filling: a relay between a CDN that counts, and viewers who come before the blocks do."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random

import pytest

from farcast.node.demo.troupe import free_port
from farcast.protocol.cid import RAW, Cid
from farcast.tests.wire.pantry import Meter, Stocked, office, stock
from farcast.tests.wire.street import Answered, Box, Street, ask, until

MIB = 1 << 20
PATIENT = {"FARCAST_LADDER_HEDGE_MIN_MS": "2000", "FARCAST_LADDER_HEDGE_MAX_MS": "2000"}
"""On a busy machine too, nothing is asked for twice only because it is slow."""
SEGMENTS = 16
STALLED = 60


@dataclass
class Supply:
    """An origin, its CDN, and one relay."""

    street: Street
    meter: Meter
    origin: Box
    relay: Box
    film: Stocked
    torn: Stocked
    files: dict[str, bytes]
    unused: list[int]

    @property
    def place(self) -> str:
        """Where the relay serves."""
        return f"127.0.0.1:{self.relay.port}"

    def cold(self) -> str:
        """Return the path of a segment nobody has asked for yet."""
        return f"v0/seg-{self.unused.pop(0):05d}.m4s"

    def get(self, path: str, **headers: str) -> Answered:
        """Ask the relay for a file of the film."""
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        return ask(self.place, "GET", f"/watch/film/{path}", named)


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Generator[Supply]:
    """Bring up origin, CDN and relay, with a film of 4 MiB segments."""
    street = Street(tmp_path_factory.mktemp("supply"))
    port, relay_port = free_port(), free_port()
    meter = Meter(port)
    home, random = street.home("origin"), Random(3)
    files = {f"v0/seg-{at:05d}.m4s": b"\0" + random.randbytes(4 * MIB - 1) for at in range(SEGMENTS)}
    files["v0/index.m3u8"] = b"#EXTM3U\n"
    files["master.m3u8"] = b"#EXTM3U\n"
    try:
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--cdn", meter.url, "--home", home)
        books = office(home)
        film = stock(books, "film", files)
        torn = stock(books, "torn", {"v0/seg-00000.m4s": b"\0" + random.randbytes(4 * MIB - 1)})
        books.shelf.store.drop(torn.leaves["v0/seg-00000.m4s"][2])
        books.close()
        listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
        origin = street.start("origin", "origin", "run", settings=listen)
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        own = {
            "FARCAST_LISTEN_PORT": str(relay_port),
            "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{relay_port}",
            "FARCAST_FILL_AHEAD": "0",
            "FARCAST_FILL_PUSH": "false",
            **PATIENT,
        }
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=own)
        assert ran.code == 0, ran
        relay = street.start("relay", "relay", "run", settings=own)
        until(lambda: relay.api("/api/status")["titles"] == 2)
        made = Supply(street, meter, origin, relay, film, torn, files, list(range(SEGMENTS)))
        assert made.get("master.m3u8").status == 200
        yield made
    finally:
        street.close()
        meter.close()


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, again where the listener's backlog is full."""
    for _ in range(5):
        with suppress(OSError):
            return await asyncio.open_connection(host, port)
        await asyncio.sleep(0.2)
    return await asyncio.open_connection(host, port)


async def _viewer(
    place: str, path: str, *, pause_s: float = 0.0, wanted: str = ""
) -> tuple[float, int, bytes]:
    """Ask for a file; returns seconds until its first byte, the status, and the body's SHA-256."""
    host, _, port = place.rpartition(":")
    await asyncio.sleep(pause_s)
    began = time.monotonic()
    reader, writer = await _connect(host, int(port))
    try:
        span = f"range: {wanted}\r\n" if wanted else ""
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {place}\r\n{span}\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
        left, first, digest = int(fields["content-length"]), 0.0, hashlib.sha256()
        while left:
            data = await asyncio.wait_for(reader.read(min(left, 1 << 18)), 60)
            assert data, "ended in the middle"
            first = first or time.monotonic() - began
            left -= len(data)
            digest.update(data)
        return first, int(head.split()[1]), digest.digest()
    finally:
        writer.close()


def test_a_thousand_askers_cost_the_source_one_request_for_each_block(supply: Supply) -> None:
    path = supply.cold()
    supply.meter.bytes_s = 8 * MIB
    few = f"bytes={MIB - 1_000}-{MIB + 999}"

    async def crowd() -> list[tuple[float, int, bytes]]:
        asked = [
            _viewer(
                supply.place, f"/watch/film/{path}", pause_s=0.0005 * number,
                wanted="" if number % 50 == 0 else few,
            )
            for number in range(1_000)
        ]  # fmt: skip
        return await asyncio.gather(*asked)

    found = asyncio.run(crowd())
    supply.meter.bytes_s = 0
    data = supply.files[path]
    whole, part = (hashlib.sha256(each).digest() for each in (data, data[MIB - 1_000 : MIB + 1_000]))
    assert {(status, digest) for _, status, digest in found} == {(200, whole), (206, part)}
    assert [supply.meter.count(cid) for cid in supply.film.leaves[path]] == [1, 1, 1, 1]


def test_a_cold_segment_is_sent_from_its_first_verified_block_on(supply: Supply) -> None:
    path = supply.cold()
    supply.meter.bytes_s = 2 * MIB

    async def pair() -> list[tuple[float, int, bytes]]:
        began = time.monotonic()
        both = await asyncio.gather(
            _viewer(supply.place, f"/watch/film/{path}"),
            _viewer(supply.place, f"/watch/film/{path}", pause_s=0.2),
        )
        return [*both, (time.monotonic() - began, 0, b"")]

    first, second, whole = asyncio.run(pair())
    supply.meter.bytes_s = 0
    assert first[0] < 0.65 * whole[0], "the first block goes out before the others are here"
    assert second[0] < first[0], "who comes later waits for the rest of one block only"
    assert first[2] == second[2] == hashlib.sha256(supply.files[path]).digest()


def test_a_range_of_a_cold_segment_costs_only_the_blocks_it_touches(supply: Supply) -> None:
    path = supply.cold()
    data, leaves = supply.files[path], supply.film.leaves[path]
    answer = supply.get(path, range=f"bytes={MIB + 10}-{2 * MIB + 9}")
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {MIB + 10}-{2 * MIB + 9}/{4 * MIB}"
    assert answer.headers["content-length"] == str(MIB)
    assert answer.body == data[MIB + 10 : 2 * MIB + 10]
    assert [supply.meter.count(cid) for cid in leaves] == [0, 1, 1, 0]
    assert supply.get(path, range=f"bytes={9 * MIB}-").status == 416
    assert supply.get(path, if_none_match=answer.headers["etag"]).status == 304
    assert supply.get(path, range="bytes=0-9", if_range='"other"').body == data
    assert [supply.meter.count(cid) for cid in leaves] == [1, 1, 1, 1]


def test_a_failure_in_the_middle_resets_and_never_ends_cleanly(supply: Supply) -> None:
    gone = supply.torn.leaves["v0/seg-00000.m4s"][2]
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", supply.relay.port, timeout=30)
        connection.request("GET", "/watch/torn/v0/seg-00000.m4s")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["content-length"] == str(4 * MIB)
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            answer.read()
        connection.close()
    assert supply.meter.count(gone) == 1, "what the origin lacks is remembered"
    assert supply.relay.metric("farcast_relay_absent_answers_total", reason="missing") == 1
    connection = http.client.HTTPConnection("127.0.0.1", supply.relay.port, timeout=30)
    connection.request("GET", "/watch/torn/v0/seg-00000.m4s", headers={"range": f"bytes={2 * MIB}-"})
    assert connection.getresponse().status == 404, "before the first byte there is a status to say it"
    connection.close()


def test_readers_that_stall_hold_no_blocks(supply: Supply) -> None:
    path = supply.cold()
    before_kib = supply.relay.rss_kib
    stalled: list[socket.socket] = []
    try:
        for _ in range(STALLED):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
            sock.connect(("127.0.0.1", supply.relay.port))
            sock.sendall(f"GET /watch/film/{path} HTTP/1.1\r\nhost: {supply.place}\r\n\r\n".encode())
            stalled.append(sock)
        for sock in stalled:
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert supply.get(path).body == supply.files[path], "others are not held up"
        assert supply.relay.rss_kib - before_kib < STALLED * 512 + (40 << 10)
    finally:
        for sock in stalled:
            sock.close()


def test_what_the_origin_lacks_is_asked_for_once(supply: Supply) -> None:
    stranger = Cid.of(RAW, os.urandom(9))
    for _ in range(3):
        answer = ask(supply.place, "GET", f"/ipfs/{stranger}?format=raw")
        assert answer.status == 404
        assert answer.reason == "not_reachable"
    assert supply.relay.metric("farcast_relay_absent_answers_total", reason="not_reachable") == 2
    assert supply.meter.count(stranger) == 0


def test_files_are_whole_in_the_store_afterwards(supply: Supply) -> None:
    path = supply.cold()
    assert supply.get(path).body == supply.files[path]
    before = [supply.meter.count(cid) for cid in supply.film.leaves[path]]
    assert supply.get(path).body == supply.files[path]
    assert [supply.meter.count(cid) for cid in supply.film.leaves[path]] == before == [1, 1, 1, 1]


def test_a_source_that_spoils_blocks_is_bounded_counted_and_then_banned(supply: Supply) -> None:
    meter, relay = supply.meter, supply.relay
    spare = [cid for _ in range(4) for cid in supply.film.leaves[f"v0/seg-{supply.unused.pop():05d}.m4s"]]
    for way, reason in REASONS.items():
        path = supply.cold()
        leaf = supply.film.leaves[path][1]
        meter.way, meter.spoilt = way, {f"/ipfs/{leaf}"}
        before = relay.metric("farcast_node_tier_failures_total", tier="cdn", reason=reason)
        assert supply.get(path).body == supply.files[path], way
        assert relay.metric("farcast_node_tier_failures_total", tier="cdn", reason=reason) == before + 1, way
        assert meter.count(leaf) == 1
        assert meter.sent_bytes[f"/ipfs/{leaf}"] < 64 * MIB, "what two sockets hold, and no more"
        until(partial(_has_sources, supply, 1 if way == "endless" else 2, spare))
    meter.way = ""
    path = supply.cold()
    asked = sum(meter.asked.values())
    assert supply.get(path).body == supply.files[path]
    assert sum(meter.asked.values()) == asked, "three lies, and it is not asked at all"


REASONS = {"cut": "truncated", "wrong": "hash_mismatch", "short": "hash_mismatch", "endless": "too_large"}


def _has_sources(supply: Supply, count: int, spare: list[Cid]) -> bool:
    """Say whether so many sources beyond the relays may be asked; only being asked shows that one is well."""
    tiers = {row["name"]: row["sources"] for row in supply.relay.api("/api/status")["tiers"]}
    if tiers["cdn"] != count and spare:
        time.sleep(0.6)
        ask(supply.place, "GET", f"/ipfs/{spare.pop()}?format=raw")
    return bool(tiers["cdn"] == count)
