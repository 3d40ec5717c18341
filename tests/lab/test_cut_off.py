"""Two homes' boxes whose Internet is gone: no uplink, no names, and a default route to a box that drops all.

Real processes in namespaces. What leaves for anywhere but the LAN passes that box, and is counted there.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from farcast.tests.lab.bridge import NETWORK, Switch
from farcast.tests.wire.pantry import office, stock
from farcast.tests.wire.street import Box, Street, until

pytestmark = pytest.mark.lab
Need = Callable[..., str]

ORIGIN = "203.0.113.5"
"""An address of no LAN here (RFC 5737): it is reached by the default route alone."""
CDN = "203.0.113.6"
"""Likewise; blocks are asked for there, and the catalog."""
PORT = 7433
HERE, THERE, GATEWAY = range(3)
ASKED_AWAY = 3
"""The origin and both CDN addresses: nobody else is asked for the catalog before the neighbours."""
SYN_SENT = "02"
"""As ``proc(5)`` has it."""
SEGMENTS, SEGMENT_BYTES = 12, 500_000
DROPPING = f"""table ip lab {{
  counter blocks {{ }}
  chain input {{
    type filter hook prerouting priority -300; policy accept;
    ip daddr {{ {NETWORK}.0/24, 224.0.0.0/4, 255.255.255.255 }} accept
    iifname eth0 ip saddr {NETWORK}.{HERE + 1} ip daddr {CDN} counter name blocks drop
    iifname eth0 drop
  }}
}}
"""
ASK = """
import sys, urllib.request as u
body = sys.argv[2].encode() if sys.argv[2:] else None
asked = u.Request(sys.argv[1], body, {"content-type": "application/cmcd"})
sys.stdout.buffer.write(u.urlopen(asked, timeout=30).read())
"""
KNOCK = """
import socket, sys
try:
    sock = socket.create_connection((sys.argv[2], int(sys.argv[3])), 30, (sys.argv[1], 0))
    sock.sendall(b"GET /readyz HTTP/1.1\\r\\nhost: 127.0.0.1\\r\\n\\r\\n")
    print(len(sock.recv(99)))
except ConnectionError:
    print(0)
"""


@pytest.fixture
def switch(need: Need) -> Generator[Switch]:
    for program in ("ip", "tc", "nft"):
        need(program)
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Switch(3, rate_bps=0) as made:
        yield made


class Homes:
    """The boxes on the switch, and what is said to them from where they are."""

    def __init__(self, street: Street, switch: Switch) -> None:
        self.street, self.switch = street, switch

    def command(self, host: int, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command of a box where it lives, and return its JSON."""
        home = self.street.home(f"box{host}")
        ran = self.street.run(*words, "--json", "--home", home, within=self.switch.words(host))
        assert ran.code == 0, ran
        return ran.json

    def run(self, host: int) -> Box:
        """Start a box."""
        return self.street.start(f"box{host}", "run", within=self.switch.words(host))

    def get(self, host: int, url: str, *body: str) -> bytes:
        """Return what a local address of a box answers, to a POST where there is a body."""
        words = self.switch.words(host, sys.executable, "-c", ASK, url, *body)
        return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout

    def metric(self, host: int, name: str, label: str = "") -> float:
        """Return the sum of a metric of a box over the series that carry ``label``."""
        box = self.street.boxes[f"box{host}"]
        lines = self.get(host, f"http://{box.local}/metrics").decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{")) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def knock(self, host: int, source: str) -> int:
        """Return how many bytes a box's public port answers the gateway, who asks by one of its addresses."""
        words = (sys.executable, "-c", KNOCK, source, self.switch.addresses[host], str(PORT))
        done = subprocess.run(self.switch.words(GATEWAY, *words), check=True, capture_output=True, timeout=60)
        return int(done.stdout)

    def check_port(self, host: int) -> None:
        """Assert that a box answers who is on its link, and nobody else."""
        assert self.knock(host, self.switch.addresses[GATEWAY]) > 0
        assert self.knock(host, ORIGIN) == 0
        assert self.metric(host, "farcast_node_http_refusals_total", 'reason="off_link"') == 1

    def has_tickets(self, host: int) -> bool:
        """Whether what is watched at a box can be signed for."""
        return self.metric(host, "farcast_node_tickets") > 0

    def asks_away(self, host: int) -> bool:
        """Whether a box asks the world for the catalog, or waits for the CDN to take a connection."""
        if self.metric(host, "farcast_node_catalog_refreshes_total") < ASKED_AWAY:
            return True
        words = self.switch.words(host, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        lines = subprocess.run(words, check=True, capture_output=True, timeout=20, text=True).stdout
        rows = [line.split() for line in lines.splitlines()]
        address = socket.inet_aton(CDN)[::-1].hex().upper()
        return any(row[3] == SYN_SENT and row[2].partition(":")[0].endswith(address) for row in rows)

    def gone(self) -> int:
        """Return how many packets have left a box for where blocks come from since the uplink went."""
        words = self.switch.words(GATEWAY, "nft", "--json", "list", "counter", "ip", "lab", "blocks")
        found = json.loads(subprocess.run(words, check=True, capture_output=True, timeout=20).stdout)
        return int(found["nftables"][-1]["counter"]["packets"])


def ip(switch: Switch, host: int, *words: str) -> None:
    """Change the network of a host."""
    subprocess.run(["ip", "-n", switch.spaces[host], *words], check=True, capture_output=True, timeout=20)


def test_cut_off_from_the_world_neighbours_list_play_keep_and_earn(switch: Switch, tmp_path: Path) -> None:
    street, random = Street(tmp_path), Random(7)
    street.settings |= {
        "FARCAST_NETWORK_INTERFACES": "",
        "FARCAST_LISTEN_HOST": "",  # as it comes: every address
        "FARCAST_LISTEN_PORT": str(PORT),
        "FARCAST_SATELLITE_ENABLED": "false",
        "FARCAST_HEARTBEAT_INTERVAL_S": "1",
    }
    homes = Homes(street, switch)
    film = {f"v0/seg-{at:05d}.m4s": random.randbytes(SEGMENT_BYTES) for at in range(SEGMENTS)}
    for address in (ORIGIN, CDN):
        ip(switch, GATEWAY, "address", "add", f"{address}/32", "dev", "lo")
    for host in (HERE, THERE):
        ip(switch, host, "route", "add", "default", "via", switch.addresses[GATEWAY])
    try:
        home = street.home("origin")
        street.must(
            "origin", "init", "--endpoint", f"{ORIGIN}:{PORT}", "--cdn", f"http://{CDN}:{PORT}",
            "--cdn", "http://cdn.example", "--home", home,
        )  # fmt: skip
        books = office(home)
        playlists = {"v0/index.m3u8": b"#EXTM3U\n", "master.m3u8": b"#EXTM3U\n"}
        stock(books, "show", {**film, **playlists})
        books.close()
        links = [street.must("origin", "account", "add", name, "--home", home)["link"] for name in "ab"]
        origin = street.start("origin", "origin", "run", within=switch.words(GATEWAY))
        for host, link in zip((HERE, THERE), links, strict=True):
            homes.command(host, "join", link)
            homes.run(host)
            until(partial(homes.has_tickets, host), 60)
        homes.command(THERE, "keep", "show")
        homes.check_port(HERE)

        origin.process.kill()
        for address in (ORIGIN, CDN):
            ip(switch, GATEWAY, "address", "del", f"{address}/32", "dev", "lo")
        switch.filter(GATEWAY, DROPPING)
        for host in (HERE, THERE):
            street.boxes[f"box{host}"].process.kill()
            street.boxes[f"box{host}"].process.wait(10)
            (street.home(f"box{host}") / "admin.json").unlink()
        for host in (HERE, THERE):
            homes.run(host)
        until(lambda: homes.metric(HERE, "farcast_mesh_neighbours") == 1, 30)

        assert [row["title"] for row in homes.command(HERE, "list")] == ["show"]
        box = street.boxes[f"box{HERE}"]
        first = next(iter(film))
        assert homes.get(HERE, f"{box.url}/watch/show/{first}") == film[first]
        # the catalog is asked for there too, once a minute; and what the player's ladder began ends soon
        until(lambda: not homes.asks_away(HERE), 60)
        gone = homes.gone()
        kept = homes.command(HERE, "keep", "show")
        assert kept["held_blocks"] == kept["blocks"]
        away = homes.gone() - gone
        assert (
            homes.metric(HERE, "farcast_node_tier_bytes_total", 'tier="mesh"')
            > SEGMENTS * SEGMENT_BYTES * 0.9
        )
        for far in ("cdn", "relay"):
            assert homes.metric(HERE, "farcast_node_tier_bytes_total", f'tier="{far}"') == 0
        assert away == 0, "asked the world for what a neighbour has"
        for path, data in film.items():
            assert homes.get(HERE, f"{box.url}/watch/show/{path}") == data
        for number in range(1, 6):  # a player tells that it plays
            line = f'cid="show",e=ps,sid="s1",sn={number},sta=p,ts={time.time_ns() // 1_000_000},v=2\n'
            homes.get(HERE, f"{box.url}/v1/cmcd", line)
            time.sleep(0.3)
        until(lambda: homes.metric(HERE, "farcast_node_pulses_total", 'result="signed"') > 0)
        told = json.loads(homes.get(HERE, f"{box.url}/api/status"))["pulses"]
        assert told["waiting"] == told["signed"] > 0, "what was watched waits for a way home"
    finally:
        street.close()
