"""Discovery between two network namespaces.

The file is also the program that runs in each namespace: ``test_presence.py SEED MDNS SECONDS``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Protocol

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh.discovery import Discovery
from farcast.node.links import Links
from farcast.protocol.identity import Identity

DAD_S = 3.0
"""Duplicate address detection (RFC 4862) takes up to this long before IPv6 speaks."""


class Wire(Protocol):
    """Two namespaces, see conftest."""

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        ...

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run this file at one end."""
        ...


async def watch(seed: int, seconds: float, *, use_mdns: bool) -> None:
    """Be a box for so long and print every change of who is there."""
    links = Links()
    discovery = Discovery(
        identity=Identity(bytes([seed]) * 32),
        port=7_433,
        net=b"n" * 8,
        addresses=links.addresses,
        on_link=links.on_link,
        is_active=lambda: True,
        has_uplink=lambda: False,
        clock_ms=lambda: time.time_ns() // 1_000_000,
        registry=CollectorRegistry(),
        use_mdns=use_mdns,
    )
    speaking = asyncio.ensure_future(discovery.run())
    started, last = time.monotonic(), list[str]()
    while (passed_s := time.monotonic() - started) < seconds:
        now = [source.address for source in discovery.neighbours()]
        if now != last:
            print(json.dumps([passed_s, now]), flush=True)  # noqa: T201 - the parent reads it
            last = now
        await asyncio.sleep(0.01)
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)


def dropping(*destinations: str) -> str:
    """Return rules under which these groups are never heard."""
    chain = ["type filter hook input priority 0; policy accept;", *(f"{to} drop" for to in destinations)]
    return "\n".join(["table inet lab {", "chain input {", *chain, "}", "}", ""])


IPV4_GROUP, IPV6_GROUP = "ip daddr 239.255.74.34", "ip6 daddr ff12::7434"


@pytest.mark.lab
@pytest.mark.parametrize(
    ("blocked", "mdns", "address"),
    [
        ((), "", "10.99.7.2:7433"),
        ((IPV4_GROUP,), "", "[fe80:"),
        ((IPV4_GROUP, IPV6_GROUP), "1", "10.99.7.2:7433"),
    ],
    ids=["ipv4", "ipv6", "mdns"],
)
def test_two_boxes_find_each_other_by_whatever_the_network_lets_through(
    wire: Wire, blocked: tuple[str, ...], mdns: str, address: str
) -> None:
    for end in (0, 1):
        wire.filter(end, dropping(*blocked))
    time.sleep(DAD_S)
    boxes = [wire.start(end, __file__, str(end + 1), mdns, "5") for end in (0, 1)]
    out, problems = boxes[0].communicate(timeout=40)
    assert out, problems
    _, known = json.loads(out.splitlines()[0])
    assert len(known) == 1
    assert known[0].startswith(address)


@pytest.mark.lab
def test_a_box_that_dies_without_a_word_is_gone_within_a_second(wire: Wire) -> None:
    watcher = wire.start(0, __file__, "1", "", "12")
    victim = wire.start(1, __file__, "2", "", "60")
    assert watcher.stdout is not None
    found_s, known = json.loads(watcher.stdout.readline())
    assert known == ["10.99.7.2:7433"]
    time.sleep(0.5)
    victim.kill()
    gone_s, known = json.loads(watcher.stdout.readline())
    assert known == []
    assert gone_s - found_s < 0.5 + 1.0 + 1.0


if __name__ == "__main__":
    asyncio.run(watch(int(sys.argv[1]), float(sys.argv[3]), use_mdns=bool(sys.argv[2])))
