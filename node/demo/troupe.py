"""The troupe: the demo's processes, each started with the commands a person would type."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from ...protocol.errors import LocalError

START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 8.0
CLIENT_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
CLIENT_PORTS_FROM = 32_768
"""Where ``CLIENT_PORTS`` tells nothing: Linux's own choice."""
PORTS_FROM, PORT_TRIES = 10_000, 200


class Actor(NamedTuple):
    """One running process: its name, handle and log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Troupe:
    """Starts, signals and, whatever happens, ends the processes it started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._actors: dict[str, Actor] = {}
        self._commands: set[subprocess.Popen[bytes]] = set()
        self._door = threading.Lock()
        self._closed = False

    def start(self, name: str, arguments: Sequence[str], extra: Mapping[str, str] | None = None) -> Actor:
        """Start ``farcast``-style ``arguments`` (after the interpreter) as the process ``name``."""
        log = self._folder / f"{name}.log"
        with self._door, log.open("ab") as output:
            process = self._popen(arguments, extra, stdout=output, stderr=subprocess.STDOUT)
            actor = self._actors[name] = Actor(name, process, log)
        return actor

    def box(
        self,
        name: str,
        arguments: Sequence[str],
        home: Path,
        extra: Mapping[str, str],
        timeout_s: float = START_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Start a box and wait until it listens; returns what its ``admin.json`` says.

        Raises:
            LocalError: where it ends or stays silent, with the last line of its log.

        """
        (home / "admin.json").unlink(missing_ok=True)
        actor = self.start(name, ["-m", "farcast", *arguments, "--home", str(home)], extra)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if actor.process.poll() is not None:
                break
            with contextlib.suppress(OSError, ValueError):
                return dict[str, Any](json.loads((home / "admin.json").read_text()))
            time.sleep(0.05)
        lines = actor.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise LocalError(f"{name} did not start: {lines[-1]}", reason="not_started")

    def command(self, arguments: Sequence[str], extra: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Run one ``farcast`` command with ``--json`` and return what it printed.

        Raises:
            LocalError: where it fails, with its own sentence.

        """
        with self._door:
            process = self._popen(
                ["-m", "farcast", *arguments, "--json"], extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            self._commands.add(process)
        try:
            output, problem = process.communicate(timeout=COMMAND_TIMEOUT_S)
        except BaseException as error:  # Ctrl-C as well: no command outlives the demo
            process.kill()
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                message = f"farcast {arguments[0]} took over {COMMAND_TIMEOUT_S:.0f} s"
                raise LocalError(message, reason="command") from error
            raise
        finally:
            self._commands.discard(process)
        if process.returncode != 0:
            lines = problem.decode(errors="replace").strip().splitlines() or ["no reason given"]
            shown = " ".join(arguments[:2])
            raise LocalError(
                f"farcast {shown} failed: {lines[-1].removeprefix('farcast: ')}", reason="command"
            )
        return json.loads(output or b"null")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of our processes."""
        actor = self._actors[name]
        if actor.process.poll() is None:
            actor.process.send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL a process and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        self._actors[name].process.wait(STOP_TIMEOUT_S)

    def pid(self, name: str) -> int:
        """Return the process id of ``name``."""
        return self._actors[name].process.pid

    def alive(self) -> list[str]:
        """Return the names of the processes that still run."""
        return [name for name, actor in self._actors.items() if actor.process.poll() is None]

    def close(self) -> None:
        """End every process: ask first, insist after a few seconds. Nothing starts any more."""
        with self._door:
            self._closed = True
            commands = list(self._commands)
            running = [actor.process for actor in self._actors.values() if actor.process.poll() is None]
        for process in (*commands, *running):
            process.send_signal(signal.SIGCONT)  # a stopped process cannot hear SIGTERM
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in (*commands, *running):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _popen(
        self,
        arguments: Sequence[str],
        extra: Mapping[str, str] | None,
        *,
        stdout: IO[bytes] | int,
        stderr: int,
    ) -> subprocess.Popen[bytes]:
        """Start the interpreter in a session of its own; raises ``LocalError`` once everything is closed."""
        if self._closed:
            raise LocalError("the demo is ending", reason="ending")
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**self._environment, **(extra or {})},
            start_new_session=True,  # Ctrl-C is for the stage, which then ends everybody in order
        )


def free_port() -> int:
    """Return a port that is free for TCP and UDP on loopback now, and that no client is given by chance."""
    for port in islice(_PORTS, PORT_TRIES):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LocalError("no port is free on 127.0.0.1", reason="no_port")


def unclaimed_ports() -> Iterator[int]:
    """Return the ports below those the system gives to clients, from a place of this process's own on."""
    above = CLIENT_PORTS_FROM
    with contextlib.suppress(OSError, ValueError):
        above = int(CLIENT_PORTS.read_text().split()[0])
    ports = range(PORTS_FROM, max(above, PORTS_FROM + PORT_TRIES))
    start = secrets.randbelow(len(ports))
    return cycle(chain(ports[start:], ports[:start]))


_PORTS = unclaimed_ports()


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without its own FARCAST_ settings, plus ``extra``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FARCAST_")}
    return {**kept, **extra}


def metric(url: str, name: str, *, without: str = "", timeout_s: float = 3.0) -> float:
    """Return the sum of one metric at a Prometheus address, 0.0 where nobody answers.

    Label sets that contain ``without`` (as written there: ``carrier="local"``) are left out.
    """
    try:
        with urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own loopback addresses
            text = response.read().decode()
    except (URLError, TimeoutError, OSError):
        return 0.0
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if not without or without not in line)
