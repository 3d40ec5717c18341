"""A box's public port with neighbours on its link, and somebody behind a router."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from farcast.tests.lab.bridge import Switch, ready
from farcast.tests.lab.doorbox import ASKS, DROPPED

pytestmark = pytest.mark.lab
Need = Callable[..., str]

PROGRAM = str(Path(__file__).with_name("doorbox.py"))
BOX, NEIGHBOUR, ROUTER, AFAR = range(4)
BEYOND = "10.99.10"
PORT = 7433


@pytest.fixture
def switch(need: Need) -> Generator[Switch]:
    for program in ("ip", "tc", "nft", "sysctl"):
        need(program)
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Switch(4, rate_bps=0) as made:
        yield made


def at(switch: Switch, host: int, *words: str) -> str:
    """Run a program at a host and return what it printed."""
    command = switch.words(host, *words)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / ".src")}
    return subprocess.run(command, check=True, capture_output=True, timeout=90, text=True, env=env).stdout


def asked(switch: Switch, host: int, address: str) -> dict[str, Any]:
    """Return what somebody at ``host`` got of the box."""
    found: dict[str, Any] = json.loads(at(switch, host, sys.executable, PROGRAM, "ask", address))
    return found


def told(box: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what the box says of itself."""
    assert box.stdin is not None
    assert box.stdout is not None
    box.stdin.write("\n")
    box.stdin.flush()
    found: dict[str, Any] = json.loads(box.stdout.readline())
    return found


def test_who_is_on_the_link_is_served_and_who_is_routed_there_gets_not_a_byte(switch: Switch) -> None:
    switch.join(ROUTER, AFAR, BEYOND)
    switch.unplug(AFAR)
    at(switch, ROUTER, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    at(switch, AFAR, "ip", "route", "add", "default", "via", f"{BEYOND}.{ROUTER + 1}")
    at(switch, BOX, "ip", "route", "add", f"{BEYOND}.0/24", "via", switch.addresses[ROUTER])
    for host in (BOX, NEIGHBOUR):
        at(switch, host, "ip", "address", "add", f"fd99::{host + 1}/64", "dev", "eth0", "nodad")
    box = switch.python(BOX, PROGRAM, "serve")
    assert ready([box]) == ["ready"]

    address = f"{switch.addresses[BOX]}:{PORT}"
    served = {"plain": ["hello"] * ASKS, "tls": "", "quic": ""}
    assert asked(switch, NEIGHBOUR, address) == served
    assert asked(switch, NEIGHBOUR, f"[fd99::{BOX + 1}]:{PORT}") == served, "over IPv6 too"
    assert asked(switch, BOX, f"127.0.0.1:{PORT}") == served
    assert "off_link" not in told(box)["refused"]

    got = asked(switch, AFAR, address)
    assert got["plain"] == [DROPPED] * ASKS, "the way there is open"
    assert got["tls"]
    assert got["quic"]
    seen = told(box)
    assert seen["refused"]["off_link"] >= ASKS + 2
    assert not [line for line in seen["logged"] if BEYOND in line]


def test_a_vpn_is_no_link_of_neighbours(switch: Switch) -> None:
    at(switch, BOX, "ip", "tuntap", "add", "dev", "vpn0", "mode", "tun")
    at(switch, BOX, "ip", "tuntap", "add", "dev", "vpn1", "mode", "tap")
    at(switch, BOX, "ip", "link", "add", "br9", "type", "bridge")
    for number, device in enumerate(("vpn0", "vpn1", "br9")):
        at(switch, BOX, "ip", "address", "add", f"10.99.{20 + number}.1/24", "dev", device)
        at(switch, BOX, "ip", "link", "set", device, "up")
    box = switch.python(BOX, PROGRAM, "serve")
    assert ready([box]) == ["ready"]
    assert sorted(told(box)["tunnels"]) == ["vpn0", "vpn1"]
