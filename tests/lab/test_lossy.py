"""Blocks over a path that loses packets: who sends them how, and what the node makes of a closed carrier.

The file is also the program at each end: ``test_lossy.py serve FOLDER``, ``fetch WAY COUNT CID``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.dial import HttpDialer
from farcast.node.http.listener import Listener
from farcast.protocol.cid import Cid
from farcast.protocol.ports import Source, TierName
from farcast.tests.lab.path import ADDRESSES, ImpairedPath, senders, why_not
from farcast.tests.wire.talkingbox import BOX, SIZE, TalkingBox

Need = Callable[..., str]

PORT = 7433
RELAY, NODE = 0, 1
SOURCE = Source(TierName.RELAY, "relay", f"{ADDRESSES[RELAY]}:{PORT}", BOX.key)
DROPPED = """
table inet lab {{
  chain input {{
    type filter hook input priority 0; policy accept;
    {} dport {} drop
  }}
}}
"""


async def serve(folder: Path) -> None:
    """Be a relay with one block, and say which."""
    box = TalkingBox(folder)
    async with Listener(box.router, lambda _: None, BOX, box.metrics, host=ADDRESSES[RELAY], port=PORT):
        print(box.cid, flush=True)  # noqa: T201 - the parent reads it
        await asyncio.Event().wait()


async def fetch(way: str, count: int, cid: Cid) -> None:
    """Be a node: fetch the block so often, as blocks go or over the authenticated channel; say how fast."""
    started = time.monotonic()
    registry = CollectorRegistry()
    async with HttpDialer(allow_private=True, registry=registry) as dialer:
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                if way == "block":
                    await dialer.get_block(SOURCE, cid, timeout_s=60)
                else:
                    await dialer.request(SOURCE, "GET", f"/ipfs/{cid}?format=raw", timeout_s=60)

        await asyncio.gather(*(worker() for _ in range(min(count, 4))))
        seconds = time.monotonic() - started
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    carried = [sample for sample in samples if sample.name == "farcast_node_carried_blocks_total"]
    found = {sample.labels["carrier"]: sample.value for sample in carried}
    print(json.dumps({"megabits": count * SIZE * 8 / 1e6 / seconds, "carriers": found}))  # noqa: T201


@contextmanager
def laid(tmp_path: Path, loss: float) -> Generator[tuple[ImpairedPath, str]]:
    """Lay the path, with a relay at its end; skips where that is not possible."""
    if lacks := why_not():
        pytest.skip(lacks)
    with ImpairedPath(loss=loss, seed=7) as path:
        path.congestion(RELAY, "cubic")  # what a sender gets that asks for nothing
        relay = path.start(RELAY, sys.executable, __file__, "serve", str(tmp_path))
        assert relay.stdout is not None
        yield path, relay.stdout.readline().strip()


def asked(path: ImpairedPath, way: str, count: int, cid: str) -> subprocess.Popen[str]:
    """Start a node that fetches."""
    return path.start(NODE, sys.executable, __file__, "fetch", way, str(count), cid)


def result(node: subprocess.Popen[str]) -> Any:  # noqa: ANN401 - JSON
    """Return what the node says in the end."""
    out, _ = node.communicate(timeout=60)
    assert node.returncode == 0
    return json.loads(out)


def offers_bbr() -> bool:
    """Say whether this kernel has BBR for us."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError:
            return False
    return True


@pytest.mark.lab
def test_a_relays_blocks_leave_with_bbr_and_outrun_quic_on_a_lossy_path(tmp_path: Path) -> None:
    if not offers_bbr():
        pytest.skip("this kernel has no bbr: modprobe tcp_bbr")
    with laid(tmp_path, loss=0.01) as (path, cid):
        node = asked(path, "block", 12, cid)
        controllers = set[str]()
        while node.poll() is None:
            controllers |= {name for name, size in senders(path.run(RELAY, "ss", "-Htin")) if size > 50_000}
            time.sleep(0.2)
        by_tcp = result(node)
        by_quic = result(asked(path, "channel", 1, cid))
    assert controllers == {"bbr"}
    assert by_tcp["carriers"] == {"tcp": 12}
    assert by_tcp["megabits"] > 3 * by_quic["megabits"]


@pytest.mark.lab
@pytest.mark.parametrize(("closed", "carrier"), [("udp", "tcp"), ("tcp", "quic")])
def test_blocks_come_by_the_carrier_that_the_path_lets_through(
    tmp_path: Path, need: Need, closed: str, carrier: str
) -> None:
    nft = need("nft")
    with laid(tmp_path, loss=0.0) as (path, cid):
        subprocess.run(
            path.words(RELAY, nft, "-f", "-"),
            input=DROPPED.format(closed, PORT),
            check=True,
            text=True,
            capture_output=True,
            timeout=20,
        )
        found = result(asked(path, "block", 8, cid))
    assert found["carriers"] == {carrier: 8}
    assert found["megabits"] > 10


ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 9))
print("ready", flush=True)
while True:
    data, where = sock.recvfrom(2000)
    sock.sendto(data, where)
"""
PING = """
import socket, struct, sys, threading, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
count, times = int(sys.argv[2]), []
def hear():
    try:
        while True:
            data = sock.recv(2000)
            times.append(time.monotonic() - struct.unpack_from("d", data)[0])
    except TimeoutError:
        pass
sock.connect((sys.argv[1], 9))
hearing = threading.Thread(target=hear)
hearing.start()
for _ in range(count):
    sock.send(struct.pack("d", time.monotonic()) + bytes(92))
    time.sleep(0.0005)
hearing.join()
print(len(times), min(times))
"""


@pytest.mark.lab
def test_the_path_itself_delays_and_loses_what_it_should() -> None:
    if lacks := why_not():
        pytest.skip(lacks)
    count = 3_000
    with ImpairedPath(delay_s=0.03, loss=0.1, seed=3) as path:
        echo = path.start(RELAY, sys.executable, "-c", ECHO)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        out = path.run(NODE, sys.executable, "-c", PING, ADDRESSES[RELAY], str(count))
        heard, fastest_s = out.split()
        counted = path.close()
    assert 0.77 < int(heard) / count < 0.85  # 0.9 each way
    assert 0.06 <= float(fastest_s) < 0.075
    assert counted["dropped"] == 0
    assert counted["lost"] > 0.15 * count


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        asyncio.run(fetch(sys.argv[2], int(sys.argv[3]), Cid.parse(sys.argv[4])))
