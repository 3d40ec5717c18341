"""A switch in network namespaces: hosts on one bridge, each by a full-duplex link of its own rate.

Every link is shaped both ways by ``tbf``. Namespaces and bridge go when the switch is closed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "10.99.9"
_QUEUE_BYTES = 200_000
_BURST_BYTES = 80_000
"""More than any segment that a sender leaves to its link to cut up (GSO, 64 KiB).

``tbf`` cuts longer ones into frames by itself, on the sender's time, which no real link takes.
"""


def why_not() -> str:
    """Say what this machine lacks for a switch, or nothing."""
    missing = [program for program in ("ip", "tc", "nft") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: apt-get install iproute2 nftables"
    return "" if os.geteuid() == 0 else "network namespaces need root"


class Switch:
    """Hosts on one bridge; use as ``with Switch(5) as switch``."""

    def __init__(self, hosts: int, *, rate_bps: float = 100e6) -> None:
        """Describe it; nothing is made yet. ``rate_bps`` 0 leaves the links unshaped."""
        self.hosts = hosts
        self._rate_bps = rate_bps
        self._mark = f"fs{os.getpid() % 100_000}"
        self._bridge = f"{self._mark}-b"
        self.spaces = [f"{self._mark}-{host}" for host in range(hosts)]
        self.addresses = [f"{NETWORK}.{host + 1}" for host in range(hosts)]
        self._programs: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        """Make it; raises ``RuntimeError`` with the system's reason."""
        try:
            self._lay()
        except subprocess.CalledProcessError as error:
            self.close()
            message = f"no switch here: {str(error.stderr).strip()[:200]}"
            raise RuntimeError(message) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the programs and take it away."""
        self.close()

    def close(self) -> None:
        """Kill the programs and take it away."""
        for program in self._programs:
            program.kill()
            program.wait(10)
            for stream in (program.stdin, program.stdout):
                if stream is not None and not stream.closed:
                    stream.close()
        self._programs.clear()
        for space in [*self.spaces, self._bridge]:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True, timeout=20)

    def join(self, one: int, other: int, network: str) -> None:
        """Lay a wire of their own between two hosts, with addresses of ``network`` by their numbers."""
        near, far = self.spaces[one], self.spaces[other]
        device = f"w{one}{other}"
        self._ip(near, "link", "add", device, "type", "veth", "peer", "name", device, "netns", far)
        for host, space in ((one, near), (other, far)):
            self._ip(space, "address", "add", f"{network}.{host + 1}/24", "dev", device)
            self._ip(space, "link", "set", device, "up")

    def unplug(self, host: int) -> None:
        """Take a host off the bridge."""
        self._ip(self.spaces[host], "link", "set", "eth0", "down")

    def rate(self, host: int, rate_bps: float) -> None:
        """Shape one host's link both ways from now on."""
        for space, device in ((self.spaces[host], "eth0"), (self._bridge, f"p{host}")):
            shape = ["rate", f"{rate_bps:.0f}bit", "burst", str(_BURST_BYTES), "limit", str(_QUEUE_BYTES)]
            self._run("tc", "-n", space, "qdisc", "replace", "dev", device, "root", "tbf", *shape)

    def filter(self, host: int, rules: str) -> None:
        """Load nftables rules at a host."""
        self._run("ip", "netns", "exec", self.spaces[host], "nft", "-f", "-", text=rules)

    def sent_bytes(self, host: int) -> int:
        """Return how many bytes have left a host's shaped link, the head of every frame included."""
        done = self._run("tc", "-n", self.spaces[host], "-j", "-s", "qdisc", "show", "dev", "eth0")
        return int(json.loads(done)[0]["bytes"])

    def words(self, host: int, *command: str) -> list[str]:
        """Return the command line that runs ``command`` at a host."""
        return ["ip", "netns", "exec", self.spaces[host], *command]

    def start(
        self, host: int, *command: str, env: Mapping[str, str] | None = None, quiet: bool = False
    ) -> subprocess.Popen[str]:
        """Start a program at a host, with ``env`` besides this one's; it is killed with the switch.

        What it prints is read by the caller, or thrown away where it is to be ``quiet``.
        """
        out = subprocess.DEVNULL if quiet else subprocess.PIPE
        program = subprocess.Popen(
            self.words(host, *command),
            env={**os.environ, "PYTHONPATH": str(ROOT / ".src"), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )
        self._programs.append(program)
        return program

    def python(
        self, host: int, script: str | Path, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a Python file as a program at a host."""
        return self.start(host, sys.executable, str(script), *words, env=env)

    def _lay(self) -> None:
        self._run("ip", "netns", "add", self._bridge)
        # without IGMP snooping multicast reaches everybody, as on the cheap switches of homes
        self._ip(
            self._bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"
        )
        self._ip(self._bridge, "link", "set", "br0", "up")
        for host, (space, address) in enumerate(zip(self.spaces, self.addresses, strict=True)):
            self._run("ip", "netns", "add", space)
            far = ("peer", "name", f"p{host}", "netns", self._bridge)
            self._ip(space, "link", "add", "eth0", "type", "veth", *far)
            self._ip(self._bridge, "link", "set", f"p{host}", "master", "br0", "up")
            self._ip(space, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip(space, "link", "set", device, "up")
            if self._rate_bps:
                self.rate(host, self._rate_bps)

    def _ip(self, space: str, *words: str) -> None:
        self._run("ip", "-n", space, *words)

    def _run(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(words, check=True, capture_output=True, timeout=20, input=text, text=True)
        return done.stdout


def ready(programs: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Return the first line that each program prints."""
    lines: list[str] = []
    for program in programs:
        assert program.stdout is not None
        line = program.stdout.readline().strip()
        if not line:
            message = "a program in a namespace ended before it was ready"
            raise RuntimeError(message)
        lines.append(line)
    return lines
