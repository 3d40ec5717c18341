"""News runs by hints between real boxes that would not look for an hour: by HTTP, and by real gossipsub.

Whoever ends the gossip process, by a frame or by a signal, disturbs nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.home import read_identity
from farcast.protocol.codec import encode
from farcast.protocol.generation import origin_id
from farcast.protocol.hint import HINTS_A_POST, Hint, HintPost, open_place
from farcast.protocol.identity import parse_peer_id, peer_id
from farcast.tests.conftest import Need
from farcast.tests.wire.conftest import listen
from farcast.tests.wire.street import FILM, ROOT, Box, Street, ask, draw, until

PATIENCE_S = 90.0
HOUR = {"FARCAST_CATALOG_POLL_S": "3600", "FARCAST_CATALOG_IDLE_POLL_S": "3600"}
KILLER = """
import sys, multiaddr, trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
async def main():
    host = new_host()
    async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        info = info_from_p2p_addr(multiaddr.Multiaddr(sys.argv[1]))
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, ["/meshsub/1.2.0"])
        await stream.write(bytes.fromhex("05ffffffffff"))
        await trio.sleep(3)
trio.run(main)
"""
"""A peer that sends the frame which py-libp2p 0.8.1 does not survive."""


@dataclass
class Village:
    """An origin, a relay and a node, all of which gossip; relay and node look for news once an hour."""

    street: Street
    python: str
    origin: Box
    relay: Box
    viewer: Box
    net: bytes

    def gossip(self, box: Box) -> Any:  # noqa: ANN401 - JSON
        """Return how a box's gossip process is."""
        return box.api("/api/hints")["gossip"]

    def all_up(self) -> bool:
        """Say whether every gossip process runs and has a peer, and the origin lists the relay."""
        listed = ask(f"127.0.0.1:{self.origin.port}", "GET", "/v1/relays").body
        found = [self.gossip(box) for box in (self.origin, self.relay, self.viewer)]
        return read_identity(self.relay.home).key in listed and all(
            one["state"] == "up" and one["peers"] for one in found
        )

    def change(self, *words: str) -> int:
        """Change the catalog; returns its size then."""
        self.street.must("origin", *words, "film", "--home", self.origin.home)
        return entries(self.origin)


def entries(box: Box) -> int:
    """Return how many catalog entries a box's checkpoint covers; 0 before the first."""
    answer = ask(f"127.0.0.1:{box.port}", "GET", "/v1/catalog/checkpoint")
    return int(answer.body.splitlines()[1]) if answer.status == 200 else 0


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Generator[Village]:
    """Bring everybody up, with a title that is not released yet."""
    folder = tmp_path_factory.mktemp("hints")
    street, python = Street(folder), folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / ".src"} exec {need("p2p-python")} "$@"\n')
    python.chmod(0o700)
    street.settings |= {
        "FARCAST_HINTS_BY": "p2p", "FARCAST_HINTS_HOST": "127.0.0.1", "FARCAST_HINTS_PORT": "0",
        "FARCAST_HINTS_PYTHON": str(python), "FARCAST_MESH_ENABLED": "false",
    }  # fmt: skip
    home, port = street.home("origin"), free_port()
    try:
        made = street.must(
            "origin", "init", "--name", "Village", "--endpoint", f"127.0.0.1:{port}", "--home", home
        )
        street.must("origin", "payee", "add", "ada", "--home", home)
        film = draw(folder / "film.mp4", *FILM)
        street.must("origin", "publish", film, "--preset", "ultrafast", "--draft", "--home", home)
        origin = street.start("origin", "origin", "run", settings=listen(port))
        with ThreadPoolExecutor(2) as pool:
            relay, viewer = pool.submit(_relay, street), pool.submit(_viewer, street)
        net = origin_id(parse_peer_id(made["peer_id"]))
        village = Village(street, str(python), origin, relay.result(), viewer.result(), net)
        until(village.all_up, PATIENCE_S)
        yield village
    finally:
        street.close()


def _relay(street: Street) -> Box:
    link = street.must("origin", "invite", "--relay", "--home", street.home("origin"))["link"]
    settings = {**HOUR, **listen(free_port())}
    joined = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
    assert joined.code == 0, joined
    return street.start("relay", "relay", "run", settings=settings)


def _viewer(street: Street) -> Box:
    link = street.must("origin", "invite", "--home", street.home("origin"))["link"]
    street.must("join", link, "--home", street.home("viewer"))
    return street.start("viewer", "run", settings=HOUR)


def test_a_new_head_is_everywhere_long_before_anybody_would_look(village: Village) -> None:
    size = village.change("release")
    assert size == 1
    until(lambda: entries(village.relay) == size, PATIENCE_S)
    until(lambda: entries(village.viewer) == size, PATIENCE_S)
    # by http and by gossip, whichever came first
    until(lambda: village.relay.metric("farcast_mesh_hints_heard_total", way="http") >= 1, PATIENCE_S)
    # the node has no neighbour to post to it: gossip alone brought the hint
    assert village.viewer.metric("farcast_mesh_hints_heard_total", way="http") == 0
    assert village.viewer.metric("farcast_mesh_hints_heard_total", way="gossip", result="taken") >= 1
    assert village.viewer.metric("farcast_node_hints_total", topic="head", result="news") == 1


def test_the_boxes_find_each_others_gossip_by_http(village: Village) -> None:
    answer = ask(f"127.0.0.1:{village.relay.port}", "GET", "/v1/hints")
    assert answer.status == 200
    place = open_place(answer.body)
    assert place.port
    assert ask(f"127.0.0.1:{village.viewer.port}", "GET", "/v1/hints").status == 404  # a node listens nowhere


def test_status_and_doctor_say_what_carries_hints(village: Village) -> None:
    assert village.viewer.api("/api/status")["hints"]["by"] == "p2p"
    assert village.relay.api("/api/status")["hints"]["gossip"]["state"] == "up"
    found = village.street.run("doctor", "--home", village.relay.home, "--json").json["checks"]
    hints = next(one for one in found if one["name"] == "hints")
    assert hints["state"] == "ok"
    assert "by gossip with" in hints["sentence"]


def test_a_plaintext_session_is_refused(village: Village) -> None:
    place = open_place(ask(f"127.0.0.1:{village.relay.port}", "GET", "/v1/hints").body)
    with socket.create_connection(("127.0.0.1", place.port), 30) as line:
        line.sendall(b"\x13/multistream/1.0.0\n\x11/plaintext/2.0.0\n")
        line.settimeout(30)
        answer = b""
        while b"na\n" not in answer:
            data = line.recv(1_024)
            assert data, answer
            answer += data
    assert b"/plaintext" not in answer


@dataclass
class Pulse:
    """Asks a box again and again, and remembers every answer that was none."""

    address: str
    answered: int = 0
    failed: list[str] = field(default_factory=list[str])
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until it is over."""
        while not self.over.is_set():
            try:
                answer = ask(self.address, "GET", "/v1/catalog/checkpoint")
            except OSError as error:
                self.failed.append(repr(error))
            else:
                self.answered += 1
                if answer.status != 200:
                    self.failed.append(str(answer.status))
            time.sleep(0.02)


@contextmanager
def asked(box: Box) -> Generator[Pulse]:
    """Ask ``box`` all the while, by its public port."""
    pulse = Pulse(f"127.0.0.1:{box.port}")
    thread = threading.Thread(target=pulse.run)
    thread.start()
    try:
        yield pulse
    finally:
        pulse.over.set()
        thread.join()


def _back(village: Village, before: int) -> bool:
    found = village.gossip(village.relay)
    return bool(found["state"] == "up" and found["pid"] != before and found["peers"])


def test_a_hostile_frame_ends_the_process_and_nothing_else(village: Village) -> None:
    relay, before = village.relay, village.gossip(village.relay)["pid"]
    place = open_place(ask(f"127.0.0.1:{relay.port}", "GET", "/v1/hints").body)
    where = f"/ip4/127.0.0.1/tcp/{place.port}/p2p/{peer_id(place.key)}"
    with asked(relay) as pulse:
        subprocess.run(
            [village.python, "-c", KILLER, where], check=True, capture_output=True, timeout=PATIENCE_S
        )
        until(lambda: relay.metric("farcast_mesh_gossip_restarts_total", reason="crash") == 1, PATIENCE_S)
        until(lambda: _back(village, before), PATIENCE_S)
    assert not pulse.failed
    assert pulse.answered > 10
    assert not Path(f"/proc/{before}").exists()


def test_a_killed_process_comes_back_and_carries_again(village: Village) -> None:
    relay, before = village.relay, village.gossip(village.relay)["pid"]
    with asked(relay) as pulse:
        os.kill(before, signal.SIGKILL)
        until(lambda: relay.metric("farcast_mesh_gossip_restarts_total", reason="killed") == 1, PATIENCE_S)
        until(lambda: _back(village, before), PATIENCE_S)
    assert not pulse.failed
    until(village.all_up, PATIENCE_S)
    size = village.change("retire")
    until(lambda: entries(village.viewer) == size, PATIENCE_S)


def test_lies_by_http_are_refused_by_reason_and_make_nobody_look(village: Village) -> None:
    relay = village.relay
    looks = relay.metric("farcast_node_catalog_refreshes_total")
    forged = [Hint(1, village.net, "head", b"a forged note %d" % number) for number in range(3)]
    foreign = Hint(1, b"elsewher", "head", b"a note of another origin")
    assert post(relay, [encode(foreign), *map(encode, forged)]) == 204
    until(lambda: relay.metric("farcast_node_hints_total", topic="head", result="malformed") == 3, PATIENCE_S)
    assert relay.metric("farcast_mesh_hints_heard_total", way="http", result="foreign") == 1
    assert relay.metric("farcast_node_catalog_refreshes_total") == looks
    # three lies: this address is not listened to any more
    assert post(relay, [encode(forged[0])]) == 429


def post(box: Box, hints: list[bytes]) -> int:
    """Post hints to a box; returns the status."""
    assert len(hints) <= HINTS_A_POST
    connection = HTTPConnection("127.0.0.1", box.port, timeout=30, source_address=("127.0.0.9", 0))
    try:
        connection.request("POST", "/v1/hints", encode(HintPost(1, hints)))
        return connection.getresponse().status
    finally:
        connection.close()
