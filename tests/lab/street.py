"""Boxes in namespaces that tell each other that they are there, and what each of them saw when."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farcast.tests.lab.bridge import Switch

PROGRAM = Path(__file__).with_name("voicebox.py")


class Voice:
    """One box, as its parent sees it."""

    def __init__(self, switch: Switch, host: int, *trusted: str) -> None:
        """Start the program; it does not speak yet."""
        self._program = switch.python(host, PROGRAM, str(host + 1), *trusted)
        self._text = ""
        self.seen = self._next(20.0)

    def tell(self, line: str) -> float:
        """Say a line to it; returns when."""
        assert self._program.stdin is not None
        at = time.monotonic()
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()
        return at

    def start(self) -> float:
        """Let it speak; returns when it began."""
        self.tell("start")
        self.seen = self._next(10.0)
        return float(self.seen["at"])

    def until(self, holds: Callable[[list[str]], bool], seconds: float = 10.0) -> float:
        """Wait until what it knows is so; returns since when it is."""
        end = time.monotonic() + seconds
        while not holds(self.seen["known"]):
            self.seen = self._next(max(0.0, end - time.monotonic()))
        return float(self.seen["at"])

    def kill(self) -> float:
        """Let it die without a word; returns when."""
        at = time.monotonic()
        self._program.kill()
        self._program.wait(10)
        return at

    def _next(self, seconds: float) -> dict[str, Any]:
        """Read a line; by hand, because what a stream has buffered is nothing that can be waited for."""
        stream = self._program.stdout
        assert stream is not None
        end = time.monotonic() + seconds
        while "\n" not in self._text:
            if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"nothing new within {seconds:.1f} s, last: {self.seen}")
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                raise subprocess.SubprocessError("a box in a namespace ended")
            self._text += data.decode()
        line, _, self._text = self._text.partition("\n")
        found: dict[str, Any] = json.loads(line)
        return found
