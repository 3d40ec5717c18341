"""A path with rate, delay, queue and random loss, the same for TCP and UDP; programs run at its two ends.

The forwarder is ``path.c``, compiled on first use. Its namespaces have no names, so nothing is left
behind however its owner dies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ADDRESSES = ("10.99.8.1", "10.99.8.2")
DEVICE = "path"
SOURCE = Path(__file__).with_name("path.c")
ROOT = Path(__file__).resolve().parents[2]
_PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcast-peers"


def why_not() -> str:
    """Say what this machine lacks for such a path, or nothing."""
    missing = [program for program in ("gcc", "ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: apt-get install gcc iproute2 util-linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun here"
    return ""


class ImpairedPath:
    """Two ends and what lies between; use as ``with ImpairedPath(...) as path``.

    ``loss`` is a fraction, drawn for each packet each way from ``seed``; a packet that finds
    ``queue_bytes`` waiting is dropped.
    """

    def __init__(
        self,
        *,
        rate_bps: float = 100e6,
        delay_s: float = 0.02,
        loss: float = 0.0,
        queue_bytes: int = 500_000,
        seed: int = 1,
    ) -> None:
        """Describe the path; nothing is made yet."""
        self._words = [
            f"{rate_bps:.0f}",
            f"{delay_s * 1e6:.0f}",
            f"{loss * 1e6:.0f}",
            str(queue_bytes),
            str(seed),
        ]
        self._spaces = ("", "")
        self._forwarder: subprocess.Popen[str] | None = None
        self._programs: list[subprocess.Popen[Any]] = []
        self.addresses = ADDRESSES

    def __enter__(self) -> Self:
        """Make it; raises ``RuntimeError`` with the system's reason."""
        forwarder = subprocess.Popen(
            [str(compiled()), *ADDRESSES, *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert forwarder.stdout is not None
        words = forwarder.stdout.readline().split()
        if words[:1] != ["ready"]:
            _, problem = forwarder.communicate(timeout=10)
            message = f"no path here: {problem.strip()}"
            raise RuntimeError(message)
        self._forwarder = forwarder
        self._spaces = (f"/proc/{forwarder.pid}/fd/{words[1]}", f"/proc/{forwarder.pid}/fd/{words[2]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the programs and take the path away."""
        self.close()

    def close(self) -> dict[str, int]:
        """Take the path away; returns how many packets were ``forwarded``, ``lost`` and ``dropped``."""
        for program in self._programs:
            program.kill()
            program.wait(10)
            for stream in (program.stdout, program.stderr):
                if stream is not None:
                    stream.close()
        self._programs.clear()
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is None:
            return {}
        try:
            words = forwarder.communicate(timeout=10)[0].split()
        except subprocess.TimeoutExpired:
            forwarder.kill()
            forwarder.communicate()
            return {}
        return {name: int(count) for name, count in zip(words[::2], words[1::2], strict=True)}

    def set_loss(self, loss: float) -> None:
        """Change the loss from now on."""
        self._tell(f"loss {loss * 1e6:.0f}")

    def set_rate(self, rate_bps: float) -> None:
        """Change the rate from now on."""
        self._tell(f"rate {rate_bps:.0f}")

    def words(self, end: int, *command: str) -> list[str]:
        """Return the command line that runs ``command`` at ``end``."""
        return ["nsenter", f"--net={self._spaces[end]}", *command]

    def run(self, end: int, *command: str, timeout_s: float = 20.0, check: bool = True) -> str:
        """Run a short program at one end and return what it printed."""
        done = subprocess.run(
            self.words(end, *command), check=check, capture_output=True, text=True, timeout=timeout_s
        )
        return done.stdout

    def start(
        self,
        end: int,
        *command: str,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program at one end; it is killed with the path."""
        program = subprocess.Popen(
            self.words(end, *command), stdout=stdout, stderr=stderr, text=True, env=env or environment()
        )
        self._programs.append(program)
        return program

    def python(self, end: int, script: str | Path, *words: str) -> subprocess.Popen[str]:
        """Start a Python file as a program at one end."""
        return self.start(end, sys.executable, str(script), *words)

    def congestion(self, end: int, name: str) -> None:
        """Let TCP senders at ``end`` that choose nothing themselves use the controller ``name``.

        The default controller of a new namespace cannot be relied on; the route decides.
        """
        self.run(end, "ip", "route", "replace", ADDRESSES[1 - end], "dev", DEVICE, "congctl", name)

    def _tell(self, line: str) -> None:
        assert self._forwarder is not None
        assert self._forwarder.stdin is not None
        self._forwarder.stdin.write(line + "\n")
        self._forwarder.stdin.flush()


def environment() -> dict[str, str]:
    """Return the environment in which a test file runs as a program."""
    return {**os.environ, "PYTHONPATH": str(ROOT / ".src")}


def senders(socket_table: str) -> Sequence[tuple[str, int]]:
    """Return (congestion controller, bytes sent) of each connection in the output of ``ss -Htin``."""
    found: list[tuple[str, int]] = []
    known = ("bbr", "cubic", "reno", "dctcp", "vegas")
    for line in socket_table.splitlines():
        words = line.split()
        name = next((word for word in words if word in known), "")
        sent = next((word.partition(":")[2] for word in words if word.startswith("bytes_sent:")), "0")
        if name:
            found.append((name, int(sent)))
    return found


def compiled() -> Path:
    """Return the forwarder, compiled from the source as it is now; raises ``RuntimeError``."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = _PEERS / f"path-{digest}"
    if not program.exists():
        _PEERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_PEERS) as folder:
            draft = Path(folder) / "path"
            done = subprocess.run(
                ["gcc", "-O2", "-o", str(draft), str(SOURCE)],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            if done.returncode:
                message = f"{SOURCE.name} does not compile: {done.stderr.strip()}"
                raise RuntimeError(message)
            draft.replace(program)
    return program
