"""A LAN of share boxes in namespaces: host 0 is the source or the uplink, the others want its film."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from farcast.tests.lab.bridge import Switch, ready

PROGRAM = Path(__file__).with_name("sharebox.py")


class Outcome(NamedTuple):
    """What each box said at its end, and how often the film left host 0, frames included."""

    boxes: list[dict[str, Any]]
    copies: float

    @property
    def seconds(self) -> float:
        """When the last of them was done."""
        return max(float(box["seconds"]) for box in self.boxes)

    @property
    def cpu_s(self) -> float:
        """Of processor time that all but host 0 took."""
        return sum(float(box["cpu_s"]) for box in self.boxes)


class Village:
    """Use as ``with Village(4, 16, folder) as village``; ``mib`` is the film's size."""

    def __init__(
        self,
        boxes: int,
        mib: int,
        folder: Path,
        *,
        roles: tuple[str, str] = ("source", "receiver"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """``roles`` are host 0's and everybody else's."""
        self.switch = Switch(boxes + 1)
        self.size_bytes = mib << 20
        self._mib, self._folder, self._roles, self._env = mib, folder, roles, dict(env or {})
        self._programs: list[subprocess.Popen[str]] = []
        self._sent_bytes = 0

    def __enter__(self) -> Self:
        """Make the switch and start every box; raises ``RuntimeError``."""
        self.switch.__enter__()
        try:
            for host, address in enumerate(self.switch.addresses):
                home = self._folder / str(host)
                home.mkdir(parents=True)
                role = self._roles[host > 0]
                words = (str(host + 1), address, str(home), str(self._mib), role)
                self._programs.append(self.switch.python(host, PROGRAM, *words, env=self._env))
            ready(self._programs)
            for host in range(len(self._programs)):
                known = [other for other in range(len(self._programs)) if other != host]
                if self._roles[0] == "uplink":  # the last one told is the way out
                    known = [] if host == 0 else [*(other for other in known if other), 0]
                for other in known:
                    self.tell(host, f"know {other + 1} {self.switch.addresses[other]}")
            self._sent_bytes = self.switch.sent_bytes(0)
        except BaseException:
            self.switch.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every box and take the switch away."""
        for program in self._programs:
            if program.stdin is not None:
                program.stdin.close()
        for program in self._programs:
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self.switch.close()

    def tell(self, host: int, line: str) -> None:
        """Say a line to a box."""
        stream = self._programs[host].stdin
        assert stream is not None
        stream.write(line + "\n")
        stream.flush()

    def go(self, hosts: Sequence[int]) -> None:
        """Let boxes begin."""
        for host in hosts:
            self.tell(host, "go")

    def kill(self, host: int) -> None:
        """Let a box die without a word."""
        self._programs[host].kill()
        self._programs[host].wait(10)

    def outcome(self, hosts: Sequence[int]) -> Outcome:
        """Wait for what boxes say at their end."""
        lines = ready([self._programs[host] for host in hosts])
        boxes = [json.loads(line.removeprefix("done ")) for line in lines]
        return Outcome(boxes, (self.switch.sent_bytes(0) - self._sent_bytes) / self.size_bytes)
