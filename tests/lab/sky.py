"""One-way links with seeded loss: a sender and receivers in namespaces, and droppers between them.

Nothing ever flows back: a dropper reads frames on the sender's side and writes those that survive on a
receiver's. The file is also the dropper: ``sky.py LOSS BURST_EVERY_S SEED LOG IN OUT``, until SIGTERM; then
LOG has what went in, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn, Self

ADDRESSES = ("10.99.9.1", "10.99.9.2", "10.99.9.3")
CAROUSEL_PORT = 7435
BURST_S = 0.2
ROOT = Path(__file__).resolve().parents[2]
_UDP, _ETHERNET, _IP, _HEADERS = 17, 14, 20, 42
_MULTICAST = 224
_CONTROL_PORT = 9_001
"""Where udpcast says hello; never dropped, so that it always begins."""


def why_not() -> str:
    """Say what this machine lacks for such links, or nothing."""
    if shutil.which("ip") is None:
        return "ip not installed: apt-get install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return ""


class Passed(NamedTuple):
    """What a dropper saw: UDP payload bytes in all, and after each carousel packet, by its number from 1."""

    total_bytes: int
    sent_bytes: list[int]
    lost_packets: list[int]


class OneWay:
    """End 0 sends, the others receive, each behind its own dropper; use as a context."""

    def __init__(self, receivers: int, loss: float, *, seed: int, burst_every_s: float, folder: Path) -> None:
        self._ends = range(receivers + 1)
        self._loss, self._seed, self._burst_every_s = loss, seed, burst_every_s
        self._folder = folder
        self._names = [f"fcsky-{os.getpid()}-{end}" for end in self._ends]
        self._middle = f"fcsky-{os.getpid()}-m"
        self._programs: list[subprocess.Popen[Any]] = []
        self._droppers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Make namespaces, links and droppers; raises ``CalledProcessError``."""
        try:
            self._lay()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything away."""
        self._clear()

    def start(self, end: int, *command: str, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401 - Popen's
        """Run a program at one end."""
        program: subprocess.Popen[str] = subprocess.Popen(
            ["ip", "netns", "exec", self._names[end], *command],
            env={**os.environ, "PYTHONPATH": str(ROOT / ".src")},
            text=True,
            **options,
        )
        self._programs.append(program)
        return program

    def join(self, ends: Sequence[int], subnet: str) -> None:
        """Put some ends on a LAN of their own, end N with the address ``subnet``.N."""
        self._run("ip", "-n", self._middle, "link", "add", "lan", "type", "bridge")
        self._run("ip", "-n", self._middle, "link", "set", "lan", "up")
        for end in ends:
            near, far = ["ip", "-n", self._names[end]], ["ip", "-n", self._middle]
            self._run(
                *far, "link", "add", f"l{end}", "type", "veth", "peer", "lan0", "netns", self._names[end]
            )
            self._run(*far, "link", "set", f"l{end}", "master", "lan", "up")
            self._run(*near, "address", "add", f"{subnet}.{end}/24", "dev", "lan0")
            self._run(*near, "link", "set", "lan0", "up")

    def passed(self, receiver: int = 1) -> Passed:
        """End a dropper and return what it saw."""
        dropper = self._droppers[receiver - 1]
        dropper.terminate()
        dropper.wait(20)
        return Passed(*json.loads(self._log(receiver).read_text()))

    def _lay(self) -> None:
        for name in (*self._names, self._middle):
            self._run("ip", "netns", "add", name)
            self._run("ip", "-n", name, "link", "set", "lo", "up")
        for end in self._ends:
            near, far = ["ip", "-n", self._names[end]], ["ip", "-n", self._middle]
            self._run(
                *far, "link", "add", f"m{end}", "type", "veth", "peer", "sky0", "netns", self._names[end]
            )
            self._run(*far, "link", "set", f"m{end}", "up")
            self._run(*near, "address", "add", f"{ADDRESSES[end]}/24", "dev", "sky0")
            self._run(*near, "link", "set", "sky0", "up")
            self._run(*near, "route", "add", "224.0.0.0/4", "dev", "sky0")
        for end in self._ends[1:]:
            words = [str(self._loss), str(self._burst_every_s), str(self._seed + end), str(self._log(end))]
            dropper: subprocess.Popen[str] = subprocess.Popen(
                ["ip", "netns", "exec", self._middle, sys.executable, __file__, *words, "m0", f"m{end}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            self._droppers.append(dropper)
            assert dropper.stdout is not None
            if dropper.stdout.readline() != "ready\n":
                message = "the dropper did not begin"
                raise RuntimeError(message)

    def _log(self, receiver: int) -> Path:
        return self._folder / f"passed-{receiver}.json"

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=20)

    def _clear(self) -> None:
        for program in (*self._programs, *self._droppers):
            if program.poll() is None:
                program.kill()
            program.wait(10)
            for stream in (program.stdin, program.stdout, program.stderr):
                if stream is not None:
                    stream.close()
        for name in (*self._names, self._middle):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)


class Loss:
    """Random loss and bursts of 200 ms, ``loss`` of everything in all; equal for equal seeds and times."""

    def __init__(self, loss: float, burst_every_s: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._every_s = burst_every_s
        self._phase_s = self._rng.uniform(BURST_S, burst_every_s) if burst_every_s else 0.0
        in_bursts = BURST_S / burst_every_s if burst_every_s else 0.0
        self._random = max(0.0, 1 - (1 - loss) / (1 - in_bursts))

    def drops(self, at_s: float) -> bool:
        """Say whether the packet that comes ``at_s`` after the first is lost."""
        is_unlucky = self._rng.random() < self._random
        return is_unlucky or (self._every_s > 0 and (at_s + self._phase_s) % self._every_s < BURST_S)


def drop(words: Sequence[str]) -> NoReturn:
    """Carry frames one way until SIGTERM."""
    loss = Loss(float(words[0]), float(words[1]), int(words[2]))
    log = Path(words[3])
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    ear.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
    ear.bind((words[4], 0x0800))
    mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    mouth.bind((words[5], 0))
    sent: list[int] = []
    lost: list[int] = []
    total = lost_count = 0
    began: float | None = None

    def end(_signal: int, _frame: FrameType | None) -> None:
        log.write_text(json.dumps([total, sent, lost]))
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        frame, address = ear.recvfrom(2_048)
        is_udp = len(frame) > _HEADERS and frame[14] == 0x45 and frame[_ETHERNET + 9] == _UDP
        if address[2] == socket.PACKET_OUTGOING or not is_udp or frame[30] < _MULTICAST:
            continue
        port = int.from_bytes(frame[36:38], "big")
        is_lost = False
        if port != _CONTROL_PORT:
            now = time.monotonic()
            began = now if began is None else began
            is_lost = loss.drops(now - began)
            total += int.from_bytes(frame[38:40], "big") - 8
        if port == CAROUSEL_PORT:
            lost_count += is_lost
            sent.append(total)
            lost.append(lost_count)
        if not is_lost:  # the sum of a frame made on this machine may not be computed yet: 0 is none
            mouth.send(frame[:40] + b"\0\0" + frame[_HEADERS:])


if __name__ == "__main__":
    drop(sys.argv[1:])
