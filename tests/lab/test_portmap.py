"""Port mapping against miniupnpd, the router daemon most homes have, in a namespace of its own.

The file is also the program that runs behind the router: ``test_portmap.py WAY PORT``.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.portmap.mapper import PortMapper
from farcast.node.portmap.route import find_router
from farcast.node.portmap.router import NatPmp, Pcp, Place, Upnp, Way

Need = Callable[..., str]

WAYS: dict[str, Callable[[Place], Way]] = {"pcp": Pcp, "natpmp": NatPmp, "upnp": Upnp}
ROUTER, BOX = 0, 1
OUTSIDE = "11.22.33.44"
"""Public by its form, and in a namespace that no cable leaves."""
CARRIER = "100.64.7.8"
PORT = 7_433
TABLES = """
table inet filter {
  chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""
CONFIG = """
ext_ifname=ext0
listening_ip=fcwire0
http_port=0
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
min_lifetime=120
max_lifetime=86400
upnp_table_name=filter
upnp_nat_table_name=filter
lease_file={leases}
uuid=00000000-0000-4000-8000-000000000001
allow 1024-65535 10.99.7.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class Wire(Protocol):
    """Two namespaces, see conftest."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        ...

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run this file at one end."""
        ...


async def behind(name: str, port: int) -> None:
    """Be a box behind the router: map, say how it went, and give the mapping back when told."""
    place = find_router()
    assert place is not None
    chosen = WAYS.values() if name == "any" else [WAYS[name]]
    ways = [make(place) for make in chosen]
    mapper = PortMapper(lambda: port, lambda: ways, lambda: None, CollectorRegistry())
    keeping = asyncio.ensure_future(mapper.run())
    while mapper.state == "looking":  # noqa: ASYNC110 - the mapper tells nobody but the metrics
        await asyncio.sleep(0.02)
    print(json.dumps([mapper.state, mapper.mapping, mapper.sentence]), flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.readline)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


class Home:
    """A home network: the router at one end of the wire, a box at the other."""

    def __init__(self, wire: Wire, ip: str, nft: str, daemon: str, folder: Path) -> None:
        self._wire, self._ip, self._nft = wire, ip, nft
        self._daemon, self._folder = daemon, folder
        self._running: list[subprocess.Popen[str]] = []

    def switch_on(self, outside: str) -> None:
        """Bring the router up with ``outside`` as its address."""
        router, box = self._wire.names
        gateway = self._wire.addresses[ROUTER]
        for words in (
            ("-n", router, "link", "add", "ext0", "type", "veth", "peer", "name", "ext1"),
            ("-n", router, "address", "add", f"{outside}/24", "dev", "ext0"),
            ("-n", router, "link", "set", "ext0", "up"),
            ("-n", router, "link", "set", "ext1", "up"),
            ("-n", router, "route", "add", "239.0.0.0/8", "dev", "fcwire0"),
            ("-n", box, "route", "add", "default", "via", gateway),
        ):
            subprocess.run([self._ip, *words], check=True, capture_output=True, timeout=20)
        self._wire.filter(ROUTER, TABLES)
        config = self._folder / "miniupnpd.conf"
        config.write_text(CONFIG.format(leases=self._folder / "leases"))
        (self._folder / "leases").touch()
        command = [self._daemon, "-d", "-f", str(config), "-P", str(self._folder / "pid")]
        self._spawn(ROUTER, command)
        time.sleep(0.5)

    def map(self, way: str, port: int = PORT) -> tuple[subprocess.Popen[str], list[object]]:
        """Start a box that maps ``port``; returns it and what it says."""
        box = self._spawn(BOX, [sys.executable, __file__, way, str(port)])
        assert box.stdout is not None
        said = json.loads(box.stdout.readline())
        return box, said

    def redirects(self) -> str:
        """Return the router's redirections as nftables prints them."""
        listed = [self._ip, "netns", "exec", self._wire.names[ROUTER], self._nft, "list", "ruleset"]
        done = subprocess.run(listed, check=True, capture_output=True, text=True, timeout=20)
        return "\n".join(line for line in done.stdout.splitlines() if "dnat" in line)

    def end(self) -> None:
        """Stop every program of this home."""
        for program in self._running:
            program.kill()
            program.communicate()

    def _spawn(self, end: int, command: list[str]) -> subprocess.Popen[str]:
        root = Path(__file__).resolve().parents[2]
        program = subprocess.Popen(
            [self._ip, "netns", "exec", self._wire.names[end], *command],
            env={"PYTHONPATH": str(root / ".src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if end == BOX else subprocess.DEVNULL,
            stderr=None if end == BOX else subprocess.DEVNULL,
            text=True,
        )
        self._running.append(program)
        return program


@pytest.fixture
def home(wire: Wire, need: Need, tmp_path: Path) -> Generator[Home]:
    """Give a home without a router yet."""
    made = Home(wire, need("ip"), need("nft"), need("miniupnpd"), tmp_path)
    yield made
    made.end()


@pytest.mark.lab
@pytest.mark.parametrize("way", WAYS)
def test_a_box_behind_a_router_is_reached_by_its_outside_address(home: Home, way: str) -> None:
    home.switch_on(OUTSIDE)
    box, (state, mapping, sentence) = home.map(way)
    assert (state, mapping) == ("mapped", [OUTSIDE, PORT]), sentence
    assert re.search(rf"(tcp|0x6 th) dport {PORT} dnat .*10\.99\.7\.2:{PORT}", home.redirects())
    assert re.search(rf"(udp|0x11 th) dport {PORT} dnat .*10\.99\.7\.2:{PORT}", home.redirects())
    box.communicate("done\n", timeout=20)
    assert not home.redirects(), "the mapping is given back"


@pytest.mark.lab
def test_carrier_grade_nat_is_named(home: Home) -> None:
    home.switch_on(CARRIER)
    _, (state, mapping, sentence) = home.map("any")
    assert (state, mapping) == ("private", None)  # miniupnpd keeps a carrier's address to itself
    assert "carrier-grade NAT" in str(sentence)


if __name__ == "__main__":
    asyncio.run(behind(sys.argv[1], int(sys.argv[2])))
