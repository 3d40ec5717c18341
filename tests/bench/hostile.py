"""An honest client's p99 while hostile ones keep the byte server busy: calm / under attack, interleaved.

The attackers share the honest client's core and are bounded in what they send, as a link bounds them:
300 that never finish a head, 20 that ask ahead and never read, and in every second some 500 malformed
heads, heads of many fields, and ranges by the hundred. Run alone: ``python -m farcast.tests.bench.hostile``.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from farcast.tests.bench import http1, served
from farcast.tests.bench.figure import Peer, compared

FIGURES = ("hostile_p99",)
GOALS = {"hostile_p99": 0.5}
CASE = "http1_1m"
ROUNDS = 9
LORISES, FLOODERS, SHOTS_A_TURN = 300, 20, 10
TURN_S = 0.02
WARM_S = 1.0

_HOST = b"Host: 127.0.0.1\r\n"
_RANGES = b",".join(b"%d-%d" % (at, at) for at in range(900))
_SHOTS = (
    b"GET / HTTP/1.1\r\n" + _HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    b"GET / HTTP/1.1\r\n" + _HOST + b"X: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\rHost: a\r\r",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4_000,
    b"\x16\x03\x01\x02\x00\x01\x00garbage",
    b"GET /watch/film/4m HTTP/1.1\r\n" + _HOST + b"Range: bytes=" + _RANGES + b"\r\n\r\n",
)  # fmt: skip


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure, unless ``only`` names other figures."""
    if only and FIGURES[0] not in only:
        return []
    if shutil.which("wrk") is None:
        return [{"name": FIGURES[0], "unit": "ms", "ratio": None, "skipped": "wrk not found on PATH"}]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        http1.make_files(root / "files")
        with served.relay(root / "files") as server:
            http1.wrk(server, CASE)
            calm: list[http1.Sample] = []
            hostile: list[http1.Sample] = []
            for _ in range(ROUNDS):
                calm.append(http1.wrk(server, CASE))
                with _attack(server.port):
                    hostile.append(http1.wrk(server, CASE))
    pairs = zip(calm, hostile, strict=True)
    requests_ratio = median(under.requests_s / before.requests_s for before, under in pairs)
    return [
        compared(
            FIGURES[0],
            "ms",
            [each.p99_ms for each in hostile],
            [each.p99_ms for each in calm],
            Peer("calm"),
            greater_is_better=False,
            digits=2,
            extra={"requests_ratio": round(requests_ratio, 3)},
        )
    ]


@contextmanager
def _attack(port: int) -> Generator[None]:
    command = served.pinned(served.CLIENT_CORE, [sys.executable, __file__, "--attack", str(port)])
    with subprocess.Popen(command) as attackers:
        try:
            time.sleep(WARM_S)
            if attackers.poll() is not None:
                message = "the attackers gave up"
                raise RuntimeError(message)
            yield
        finally:
            attackers.terminate()


class _Hostile:
    """A connection that does one bad thing for as long as it is let."""

    def __init__(self, port: int, what: bytes, step: int) -> None:
        self._port = port
        self._what = what
        self._step = step
        self._at = 0
        self._sock: socket.socket | None = None

    def turn(self) -> None:
        """Send the next bytes, on a new connection where the last was ended."""
        try:
            if self._sock is None:
                self._sock = _connect(self._port)
                self._at = 0
            self._at += self._sock.send(self._what[self._at : self._at + self._step])
            if self._at >= len(self._what):
                self._at = 0
        except BlockingIOError:
            return
        except OSError:
            if self._sock is not None:
                self._sock.close()
            self._sock = None


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=1)
    sock.setblocking(False)
    return sock


def attack(port: int) -> None:
    """Be all attackers until ended."""
    head = b"GET /watch/film/1m HTTP/1.1\r\n" + _HOST
    lorises = [_Hostile(port, head + b"X: " + b"a" * 8_000, 1) for _ in range(LORISES)]
    flooders = [_Hostile(port, (head + b"\r\n") * 500, 1 << 16) for _ in range(FLOODERS)]
    turns = 0
    while True:
        for each in (*lorises[turns % 10 :: 10], *flooders[turns % 5 :: 5]):
            each.turn()
        for number in range(SHOTS_A_TURN):
            with suppress(OSError):
                sock = _connect(port)
                sock.send(_SHOTS[(turns + number) % len(_SHOTS)])
                sock.close()
        turns += 1
        time.sleep(TURN_S)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        attack(int(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(run(), indent=2) + "\n")
