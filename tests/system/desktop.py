"""Real players of a desktop, driven and asked for their position: mpv by its IPC, VLC by its rc interface."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

from farcast.node.demo.troupe import free_port

POLL_S = 0.05
START_TIMEOUT_S, STOP_TIMEOUT_S = 20.0, 5.0
MPV = (
    "--no-config",
    "--vo=null",
    "--ao=null",
    "--really-quiet",
    "--no-terminal",
    "--idle=no",
    "--load-scripts=no",
)
VLC = (
    "-I",
    "oldrc",
    "--rc-fake-tty",
    "--vout=dummy",
    "--aout=adummy",
    "--no-media-library",
    "--no-video-title-show",
)
INPUT = "status change: ( new input: "
"""What VLC says before an address."""


class Desktop(Protocol):
    """A player that can be told what a person would do."""

    process: subprocess.Popen[bytes]
    step_s: float
    """How finely it tells its position."""

    async def position_s(self) -> float | None:
        """Return the playhead in seconds, None before there is one."""
        ...

    async def plays(self) -> str:
        """Return the address of what it plays now, empty before it plays anything."""
        ...

    async def skip(self) -> None:
        """Go on with the next of a list."""
        ...

    async def pause(self) -> None:
        """Pause, or go on."""
        ...

    async def seek(self, position_s: float) -> None:
        """Move the playhead."""
        ...

    async def rate(self, rate: float) -> None:
        """Play so fast."""
        ...


class Watch:
    """Looks at a player's own position all the time: in which wall seconds did it advance?"""

    def __init__(self, player: Desktop) -> None:
        self._player = player
        self._task: asyncio.Task[None] | None = None
        self.advanced_s = 0.0
        self.longest_stall_s = 0.0
        self.last_s: float | None = None

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop looking."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def until(self, position_s: float, timeout_s: float) -> None:
        """Wait until the playhead is there."""
        deadline = time.monotonic() + timeout_s
        while self.last_s is None or self.last_s < position_s:
            assert time.monotonic() < deadline, f"the playhead stands at {self.last_s}"
            await asyncio.sleep(POLL_S)

    def _gap(self, moved_s: float, gap_s: float, slowest_s: float) -> float:
        """Return how much of the time between two places was playback."""
        if moved_s < 0:
            return 0.0
        if gap_s <= slowest_s:
            return gap_s
        return min(gap_s, moved_s)  # it stood for a while before it moved

    async def _look(self) -> None:
        moved_at: float | None = None
        slowest_s = self._player.step_s * 1.7 + 4 * POLL_S
        while True:
            with suppress(OSError, ValueError):
                found, now = await self._player.position_s(), time.monotonic()
                if found is not None and found != self.last_s:
                    if moved_at is not None and self.last_s is not None:
                        self.advanced_s += self._gap(found - self.last_s, now - moved_at, slowest_s)
                        self.longest_stall_s = max(self.longest_stall_s, now - moved_at)
                    self.last_s, moved_at = found, now
            await asyncio.sleep(POLL_S)


class Mpv:
    """mpv with its JSON IPC."""

    step_s = 0.0

    def __init__(self, program: str, folder: Path, arguments: Sequence[str]) -> None:
        """Start it; ``arguments`` are addresses and options."""
        self._path = folder / "mpv.sock"
        self._number = 0
        self._pipes: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self.process = subprocess.Popen(
            [program, *MPV, f"--input-ipc-server={self._path}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def ask(self, *command: object) -> Any:  # noqa: ANN401 - JSON
        """Send a command and return its data; None where mpv has none."""
        async with self._lock:  # one stream, and one reader of it
            return await self._exchange(*command)

    async def _exchange(self, *command: object) -> Any:  # noqa: ANN401 - JSON
        if self._pipes is None:
            self._pipes = await asyncio.open_unix_connection(str(self._path))
        reader, writer = self._pipes
        self._number += 1
        writer.write(json.dumps({"command": command, "request_id": self._number}).encode() + b"\n")
        while True:
            line = await asyncio.wait_for(reader.readline(), 5)
            if not line:
                self.close()
                raise ConnectionResetError
            found = json.loads(line)
            if found.get("request_id") == self._number:
                return found.get("data")

    async def position_s(self) -> float | None:
        """Return ``time-pos``."""
        found: float | None = await self.ask("get_property", "time-pos")
        return found

    async def plays(self) -> str:
        """Return ``path``."""
        return str(await self.ask("get_property", "path") or "")

    async def skip(self) -> None:
        """Go on with the next of the list."""
        await self.ask("playlist-next")

    async def pause(self) -> None:
        """Pause, or go on."""
        await self.ask("cycle", "pause")

    async def seek(self, position_s: float) -> None:
        """Seek."""
        await self.ask("seek", position_s, "absolute")

    async def rate(self, rate: float) -> None:
        """Set the speed."""
        await self.ask("set_property", "speed", rate)

    def close(self) -> None:
        """Close the IPC."""
        if self._pipes is not None:
            self._pipes[1].close()
            self._pipes = None


class Vlc:
    """VLC with its rc interface; it refuses to run as root, so it runs as nobody."""

    step_s = 1.0

    def __init__(self, program: str, folder: Path, arguments: Sequence[str]) -> None:
        """Start it; ``arguments`` are addresses and options."""
        self._port = free_port()
        self._pipes: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        home = folder / "vlc"
        home.mkdir(exist_ok=True)
        home.chmod(0o777)
        command = [program, *VLC, f"--rc-host=127.0.0.1:{self._port}", *arguments]
        environment = {**os.environ, "HOME": "/nonexistent", "XDG_RUNTIME_DIR": "/nonexistent"}
        if os.getuid() == 0:
            command = [
                shutil.which("setpriv") or "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                *command,
            ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )

    async def ask(self, command: str) -> list[str]:
        """Send a line and return the lines that came by the next."""
        async with self._lock:
            if self._pipes is None:
                self._pipes = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._pipes
            writer.write(f"{command}\n".encode())
            lines = list[str]()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.04):
                    while line := await reader.readline():
                        lines.append(line.decode(errors="replace").strip("> \r\n"))
            return lines

    async def position_s(self) -> float | None:
        """Return ``get_time``: whole seconds."""
        for line in await self.ask("get_time"):
            if line.isdigit():
                return float(line)
        return None

    async def plays(self) -> str:
        """Return the input that ``status`` names; an older one may have been told unasked before."""
        lines = await self.ask("status")
        told = [line.removeprefix(INPUT).rstrip(" )") for line in lines if line.startswith(INPUT)]
        return told[-1] if told else ""

    async def skip(self) -> None:
        """Go on with the next of the list."""
        await self.ask("next")

    async def pause(self) -> None:
        """Pause, or go on."""
        await self.ask("pause")

    async def seek(self, position_s: float) -> None:
        """Seek."""
        await self.ask(f"seek {position_s:.0f}")

    async def rate(self, rate: float) -> None:
        """Set the speed."""
        await self.ask(f"rate {rate:g}")

    def close(self) -> None:
        """Close the rc connection."""
        if self._pipes is not None:
            self._pipes[1].close()
            self._pipes = None


@asynccontextmanager
async def at_desktop(
    kind: type[Mpv | Vlc], program: str, folder: Path, *arguments: str
) -> AsyncGenerator[Mpv | Vlc]:
    """Start a player, wait until it answers, and end it afterwards."""
    player = kind(program, folder, arguments)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert player.process.poll() is None, "the player ended at once"
            assert time.monotonic() < deadline, "the player does not answer"
            with suppress(OSError):
                await player.position_s()
                break
            await asyncio.sleep(0.05)
        yield player
    finally:
        player.close()
        player.process.terminate()
        try:
            player.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            player.process.kill()
            player.process.wait()


PLAYERS: dict[str, type[Mpv | Vlc]] = {"mpv": Mpv, "vlc": Vlc}
