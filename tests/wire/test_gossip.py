"""The gossip process from the box's side: whatever it does or says, the box bounds it and goes on."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh.child import child as shell
from farcast.mesh.child.restarts import Limits
from farcast.mesh.hints.gossip import Gossip, Place
from farcast.protocol.codec import encode
from farcast.protocol.hint import Hint
from farcast.tests.wire.services import running, until

NET = b"o" * 8
FAST = Limits(first_s=0.01, last_s=0.02, starts=3, off_s=3_600.0)

_BEGINNING = f"""#!{sys.executable}
import os, socket, sys, time
link = socket.socket(fileno=int(sys.argv[4]))
"""
DYING = "sys.exit('its last words')\n"
FORKING = """
if pid := os.fork():
    open({told!r}, 'a').write(str(pid) + ' ')
else:
    time.sleep(600)
"""
MUTE = "time.sleep(600)\n"
CLOSED = "link.close(); time.sleep(600)\n"
BABBLING = "link.send(b'\\x93\\xa5heard\\xc1'); time.sleep(600)\n"
OLD = "link.send(b'\\x94\\xa2up\\x63\\x00\\xc4\\x20' + bytes(32)); time.sleep(600)\n"
ENDLESS = """
link.send(b'\\x94\\xa2up\\x01\\x00\\xc4\\x20' + bytes(32))
while True:
    link.send(b'\\x93\\xa5heard\\xc4\\x01x\\xc4\\x01a')
"""
LIVING = """
link.send(b'\\x94\\xa2up\\x01\\x07\\xc4\\x20' + bytes(32))
link.send(b'\\x92\\xa5alive\\x03')
while data := link.recv(4_096):
    if data.startswith(b'\\x92\\xa4tell'):
        link.send(b'\\x93\\xa5heard' + data[6:] + b'\\xc4\\x01a')
"""


class Bench:
    """One gossip carrier over a program of the test's, and what it counted and heard."""

    def __init__(self, folder: Path, program: str, limits: Limits = FAST) -> None:
        self.registry = CollectorRegistry()
        self.heard: list[tuple[bytes, str, str]] = []
        path = folder / "python"
        path.write_text(_BEGINNING + program)
        path.chmod(0o700)
        self.gossip = Gossip(
            NET, Place(str(path), "", 0), self.hear, self.nobody, self.registry, limits=limits
        )  # fmt: skip

    def hear(self, data: bytes, way: str, teller: str) -> None:
        """Remember what came."""
        self.heard.append((data, way, teller))

    async def nobody(self) -> list[str]:
        """Know nobody to dial."""
        return []

    def ends(self, reason: str) -> float:
        """Return how often the process ended so."""
        return self.registry.get_sample_value("farcast_mesh_gossip_restarts_total", {"reason": reason}) or 0


def _runs(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # of a zombie nothing
    except OSError:
        return False


@pytest.mark.parametrize(
    ("program", "reason"),
    [(DYING, "ended"), (BABBLING, "bad_message"), (ENDLESS, "flood"), (OLD, "version")],
    ids=["dies at once", "talks nonsense", "never stops", "of another version"],
)
async def test_what_cannot_be_used_is_ended_counted_and_off_after_its_starts(
    tmp_path: Path, program: str, reason: str
) -> None:
    bench = Bench(tmp_path, program)
    async with running(bench.gossip.run()):
        await until(lambda: bench.gossip.state == "off", 60)
        assert bench.ends(reason) == FAST.starts
        assert bench.gossip.pid == 0
        assert bench.gossip.why
        bench.gossip.again()
        await until(lambda: bench.ends(reason) == 2 * FAST.starts, 60)
        assert len(bench.heard) <= 2 * FAST.starts * shell.FRAME_BURST * 2


async def test_its_last_words_say_why_and_what_it_started_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    bench = Bench(tmp_path, FORKING.format(told=str(told)) + DYING)
    async with running(bench.gossip.run()):
        await until(lambda: bench.gossip.state == "off", 60)
        assert bench.gossip.why == "its last words"
    pids = told.read_text().split()
    assert len(pids) == FAST.starts
    await until(lambda: not any(_runs(int(pid)) for pid in pids), 60)


@pytest.mark.parametrize(
    ("program", "reason", "patience"),
    [(MUTE, "silent", "STARTING_S"), (CLOSED, "closed", "ENDING_S")],
    ids=["from the start", "with its pipe closed"],
)
async def test_a_process_that_says_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str, patience: str
) -> None:
    monkeypatch.setattr(shell, patience, 0.2)
    monkeypatch.setattr(shell, "WATCH_S", 0.05)
    bench = Bench(tmp_path, program)
    async with running(bench.gossip.run()):
        await until(lambda: bench.ends(reason) >= 1, 60)


async def test_where_nothing_can_be_run_it_is_off_until_told(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    bench = Bench(tmp_path, DYING)
    cases = [(str(tmp_path / "none"), "cannot be run")]
    if find_spec("libp2p") is None:  # as the lock has it
        cases.append(("", "farcast[p2p]"))
    for python, words in cases:
        gossip = Gossip(NET, Place(python, "", 0), bench.hear, bench.nobody, registry)
        registry = CollectorRegistry()
        async with running(gossip.run()):
            await until(lambda one=gossip: one.state == "off", 60)  # type: ignore[misc]
            assert words in gossip.why
            assert gossip.place is None
            await gossip.tell([b"a hint nobody carries"])


async def test_one_that_lives_carries_hints_and_comes_back_when_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LIVING)
    hint = encode(Hint(1, NET, "head", b"note"))
    async with running(bench.gossip.run()):
        await until(lambda: bench.gossip.state == "up", 60)
        assert bench.gossip.place is not None
        assert bench.gossip.place.port == 7
        await bench.gossip.tell([hint])
        await until(lambda: bool(bench.heard), 60)
        assert bench.heard == [(hint, "gossip", b"a".hex())]
        first = bench.gossip.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: bench.gossip.state == "up" and bench.gossip.pid != first, 60)
        assert bench.ends("killed") == 1
        second = bench.gossip.pid
    assert not _runs(second)  # it ends with its box


async def test_the_process_gets_nothing_of_the_boxs_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARCAST_ADMIN_TOKEN", "a-secret-of-the-box")
    told = tmp_path / "told"
    bench = Bench(tmp_path, f"open({str(told)!r}, 'w').write(repr(dict(os.environ)))\n")
    async with running(bench.gossip.run()):
        await until(lambda: bench.gossip.state == "off", 60)
    assert "PATH" in told.read_text()
    assert "secret" not in told.read_text()
