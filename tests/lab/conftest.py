"""Two network namespaces joined by a wire, for programs that each see one end of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

Need = Callable[..., str]

ADDRESSES = ("10.99.7.1", "10.99.7.2")
LINKS = ("fcwire0", "fcwire1")


class Wire:
    """The two ends, and the programs started there."""

    def __init__(self, ip: str, nft: str) -> None:
        self._ip, self._nft = ip, nft
        self.names = tuple(f"fc-{os.getpid()}-{end}" for end in (0, 1))
        self.addresses = ADDRESSES
        self._programs: list[subprocess.Popen[str]] = []

    def _run(self, *words: str, text: str | None = None) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=20, input=text, text=True)

    def lay(self) -> None:
        """Make the namespaces and the wire between them; raises ``CalledProcessError``."""
        for name in self.names:
            self._run(self._ip, "netns", "add", name)
        wire = [self._ip, "link", "add", LINKS[0], "netns", self.names[0], "type", "veth"]
        self._run(*wire, "peer", "name", LINKS[1], "netns", self.names[1])
        for name, link, address in zip(self.names, LINKS, self.addresses, strict=True):
            self._run(self._ip, "-n", name, "address", "add", f"{address}/24", "dev", link)
            for device in ("lo", link):
                self._run(self._ip, "-n", name, "link", "set", device, "up")

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        self._run(self._ip, "netns", "exec", self.names[end], self._nft, "-f", "-", text=rules)

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run a test file as a program at one end."""
        return self.spawn(end, sys.executable, script, *words)

    def spawn(self, end: int, *words: str) -> subprocess.Popen[str]:
        """Run any program at one end."""
        root = Path(__file__).resolve().parents[2]
        program = subprocess.Popen(
            [self._ip, "netns", "exec", self.names[end], *words],
            env={**os.environ, "PYTHONPATH": str(root / ".src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._programs.append(program)
        return program

    def cut(self) -> None:
        """Kill the programs and take the namespaces away."""
        for program in self._programs:
            program.kill()
            program.communicate()
        for name in self.names:
            subprocess.run([self._ip, "netns", "delete", name], check=False, capture_output=True, timeout=20)


@pytest.fixture
def wire(need: Need) -> Generator[Wire]:
    """Lay a wire between two namespaces; skips where that is not allowed."""
    laid = Wire(need("ip"), need("nft"))
    try:
        try:
            laid.lay()
            laid.filter(0, "table inet probe { }")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here, they need root: {error.stderr.strip()[:200]}")
        yield laid
    finally:
        laid.cut()
