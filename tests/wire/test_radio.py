"""Two real Reticulum instances over a kilobit a second, each in a process of its box; nothing is trusted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh.child.child import Child, Program
from farcast.mesh.child.restarts import Limits
from farcast.mesh.radio.reticulum import Reticulum as Process
from farcast.node.catalog.replica import Replica
from farcast.node.demo.troupe import free_port
from farcast.node.radio import Body, Radio, heard
from farcast.node.settings import Reticulum
from farcast.protocol.batch import batch_hash
from farcast.protocol.identity import Identity, peer_id
from farcast.protocol.note import compact
from farcast.protocol.radio import head_datagram
from farcast.tests.unit.node.catalog.test_replica import NAME, ORIGIN, RING, heads
from farcast.tests.unit.origin.mint import Viewer, batch
from farcast.tests.wire.air import CLIENT, SERVER, Air, configured

BPS = 1_000
NET = b"net of 8"
RELAY, NODE, STRANGER = (Identity(letter * 32) for letter in (b"r", b"n", b"s"))
ANN = Viewer(1)
PULSES = ANN.watch(b"m" * 32, 20)[:20]
BATCHES = [batch(RELAY, [ANN], PULSES, [1_000] * 20, number) for number in (1, 2)]
WAIT_S = 90.0


async def until(true: Callable[[], object], what: str) -> None:
    """Wait for a state."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.05)


def counted(registry: CollectorRegistry, name: str) -> dict[str, int]:
    """Return what a counter with one label has counted."""
    samples = [one for metric in registry.collect() for one in metric.samples if one.name == f"{name}_total"]
    return {next(iter(one.labels.values())): int(one.value) for one in samples if one.value}


class Box:
    """A box with a catalog of so many entries, and batches that wait."""

    def __init__(
        self, folder: Path, identity: Identity, entries: int, batches: list[bytes], config: Path
    ) -> None:
        self.replica = Replica(folder / "catalog", lambda: RING)
        known, notes = heads(entries)
        self.replica.advance(notes[-1], 0, known)
        self.registry, self.looks = CollectorRegistry(), list[str]()
        self.batches = batches
        body = Body(
            identity, NET, self.replica, lambda: RING, self.waiting,
            RELAY.key.__eq__, lambda: time.time_ns() // 1_000_000,
        )  # fmt: skip
        settings = Reticulum(True, "", str(config), BPS, 100)
        self.radio = Radio(body, settings, self.registry, look=lambda: self.looks.append("look"))

    def waiting(self, most: int) -> list[tuple[int, bytes]]:
        """Return the oldest batches that wait here."""
        return [*enumerate(self.batches, 1)][:most]

    @property
    def heard(self) -> dict[str, int]:
        """What was heard, by what came of it."""
        return counted(self.registry, "farcast_node_radio_heard")


async def test_a_head_and_waybills_cross_a_kilobit_a_second_and_are_verified_as_from_anybody(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with Air(port, BPS) as air:
        relay = Box(tmp_path / "relay", RELAY, 5, BATCHES, configured(tmp_path / "r", CLIENT, air.port))
        node = Box(tmp_path / "node", NODE, 3, [], configured(tmp_path / "n", SERVER, port))
        running = [asyncio.ensure_future(box.radio.run()) for box in (relay, node)]
        try:
            await until(lambda: node.heard.get("news", 0) >= 3, "a head and two waybills")
            assert node.radio.facts == {
                "up": True,
                "why": "",
                "behind": 2,
                "waiting": [{"carrier": peer_id(RELAY.key), "batches": 2, "pulses": 40}],
            }
            assert heard(node.radio.facts) == [
                "a catalog with 2 more entries is out",
                f"40 pulses in 2 batches wait with {peer_id(RELAY.key)}",
            ]
            assert node.looks == ["look"], "it asks somebody for the catalog; the head alone changes nothing"
            assert node.replica.catalog.size == 3
            node.radio.arrived(batch_hash(BATCHES[0]))
            await until(lambda: node.radio.facts["waiting"][0]["batches"] == 1, "one has arrived")
            forged = head_datagram(compact(relay.replica.checkpoint() or b"", NAME, ORIGIN.key))
            bad = forged[:-1] + bytes([forged[-1] ^ 1])
            for datagram in (bad, b"\x02nonsense", b"?"):
                assert relay.radio.process.tell(datagram)
            await until(lambda: node.heard.get("malformed", 0) >= 2, "what proves nothing is counted")
            assert node.heard["bad_signature"] == 1
            assert node.radio.facts["behind"] == 2
            assert sum(air.carried) < 2_000, "bytes in all, both ways"
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    assert all(box.radio.process.child.pid == 0 for box in (relay, node)), "nothing stays"


async def test_a_child_that_dies_is_replaced_and_one_that_cannot_run_says_why(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    config = configured(tmp_path / "r", SERVER, free_port())
    process = Process(NET, "", str(config), lambda _: None, registry)
    running = asyncio.ensure_future(process.run())
    try:
        await until(lambda: process.up, "it runs")
        first = process.child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.up and process.child.pid not in (0, first), "another one runs")
        assert counted(registry, "farcast_mesh_radio_ends") == {"killed": 1}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    python = tmp_path / "python"
    nowhere = Process(NET, str(python), str(config), lambda _: None, CollectorRegistry())
    running = asyncio.ensure_future(nowhere.run())
    try:
        await until(lambda: nowhere.why, "it cannot run")
        assert "rns is not installed" in nowhere.why
        assert not nowhere.tell(b"x")
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        nowhere.again()
        await until(lambda: nowhere.up, "it begins anew because it is told so")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


FLOOD = "import socket, sys\nlink = socket.socket(fileno=int(sys.argv[1]))\nwhile True: link.send(b'A')\n"


async def test_a_child_that_says_more_than_it_may_is_ended(tmp_path: Path) -> None:
    python, ends = tmp_path / "python", list[str]()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{FLOOD}" "$4"\n')
    python.chmod(0o755)
    program = Program("radio", str(python), "any", (), 100)
    child = Child(program, lambda _: None, ends.append, limits=Limits(first_s=3_600.0))
    running = asyncio.ensure_future(child.run())
    try:
        await until(lambda: ends, "it is ended")
        assert (ends, child.pid) == (["flood"], 0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
