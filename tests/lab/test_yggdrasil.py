"""A relay that is reached through Debian's Yggdrasil alone: two namespaces, no other address in common.

The file is also the program that runs in them: ``test_yggdrasil.py announce HOME``, ``dial ADDRESS ID`` or
``ask PLACE``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from farcast.node.http.dial import HttpDialer
from farcast.node.ladder.tiers import address
from farcast.node.settings import Settings
from farcast.node.yggdrasil import ask
from farcast.protocol.errors import UnreachableError
from farcast.protocol.identity import parse_peer_id
from farcast.protocol.ports import Source, TierName
from farcast.relay.joining import outside_of

NO_IPV4 = """
table inet lab {
  chain leaving {
    type filter hook output priority 0; policy accept;
    meta nfproto ipv4 oifname != "lo" drop
  }
}
"""
UP_S = 30.0


class Wire(Protocol):
    """Two namespaces, see conftest."""

    names: tuple[str, ...]

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        ...

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run Python at one end."""
        ...

    def spawn(self, end: int, *words: str) -> subprocess.Popen[str]:
        """Run a program at one end."""
        ...


def announced(home: str) -> None:
    """Print what a relay here would publish."""
    settings = Settings.load(Path(home), os.environ)
    print(json.dumps([address(one) for one in outside_of(settings).endpoints()]))  # noqa: T201 - the parent reads it


async def dial(place: str, key: bytes) -> None:
    """Print the answer of a box, or why there is none, and why TLS and QUIC do not reach it."""
    source = Source(TierName.RELAY, "relay", place, key)
    async with HttpDialer() as dialer:
        try:
            said = str((await dialer.request(source, "GET", "/healthz", timeout_s=5.0)).status)
            lost = await dialer.reach(source, timeout_s=5.0)
        except UnreachableError as error:
            said, lost = error.reason, ("", "")
    print(json.dumps([said, *lost]))  # noqa: T201 - the parent reads it


def told(program: subprocess.Popen[str]) -> list[Any]:
    """Return what a program of this file printed."""
    out, problems = program.communicate(timeout=40)
    assert out, problems
    found: list[Any] = json.loads(out)
    return found


def farcast(*words: str) -> str:
    """Run a command on this side."""
    words = (sys.executable, "-m", "farcast", *words)
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.lab
def test_a_relay_is_announced_at_its_yggdrasil_address_and_dialled_there_only_from_within(
    wire: Wire, need: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, home = need("yggdrasil", "/usr/sbin"), str(tmp_path / "relay")
    monkeypatch.setenv("FARCAST_LISTEN_HOST", "::")
    farcast("relay", "init", "--standalone", "--home", home)
    key = json.loads(farcast("key", "show", "--json", "--home", home))["peer_id"]
    assert told(wire.start(0, __file__, "announce", home)) == ["10.99.7.1:7433"], "nothing runs yet"
    made = subprocess.run([program, "-genconf", "-json"], check=True, capture_output=True, timeout=20)
    places = (f"unix://{tmp_path}/admin.sock", "tcp://localhost:9001")
    for end in (0, 1):
        wire.filter(end, NO_IPV4)
        config = tmp_path / f"yggdrasil-{end}.json"
        if end:
            made = subprocess.run([program, "-genconf", "-json"], check=True, capture_output=True, timeout=20)
        config.write_text(json.dumps({**json.loads(made.stdout), "AdminListen": places[end]}))
    box = wire.start(0, "-m", "farcast", "relay", "run", "--home", home)
    wire.spawn(0, program, "-useconffile", str(tmp_path / "yggdrasil-0.json"))
    end_s = time.monotonic() + UP_S
    while not (found := told(wire.start(0, __file__, "announce", home))[-1]).startswith("[2"):
        assert time.monotonic() < end_s, found
    assert told(wire.start(1, __file__, "dial", found, key))[0] == "private_address", "not from outside"
    wire.spawn(1, program, "-useconffile", str(tmp_path / "yggdrasil-1.json"))
    while (said := told(wire.start(1, __file__, "dial", found, key))) != ["200", "", ""]:
        assert time.monotonic() < end_s, said
    assert box.poll() is None
    heard = [told(wire.start(end, __file__, "ask", places[end])) for end in (0, 1)]
    assert [said[1:] for said in heard] == [[1, "ok", ""]] * 2, "each has the other as its peer"
    assert found == f"[{heard[0][0]}]:7433", "what it says of itself is what was found by its interface"


if __name__ == "__main__":
    if sys.argv[1] == "announce":
        announced(sys.argv[2])
    elif sys.argv[1] == "ask":
        print(json.dumps(ask(sys.argv[2])))  # noqa: T201 - the parent reads it
    else:
        asyncio.run(dial(sys.argv[2], parse_peer_id(sys.argv[3])))
