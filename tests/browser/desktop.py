"""Players that are programs, mpv and VLC, watched over the remote control each has."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from farcast.node.demo.troupe import free_port
from farcast.tests.browser.screen import BUFFER_S
from farcast.tests.browser.seen import Gap, Moment, Seen

STOP_TIMEOUT_S, CALL_TIMEOUT_S = 5.0, 2.0
PROGRAMS = {"mpv": "mpv", "vlc": "vlc"}
VLC_PASSWORD = "watch"


class Reading(NamedTuple):
    """What a remote control says: position and what is buffered behind it."""

    position_s: float
    ahead_s: float


class Watcher:
    """Reads a remote control every ``step_s`` in a thread, and notes where the picture stood still."""

    def __init__(self, read: Callable[[], Reading | None], step_s: float, gap_s: float) -> None:
        self._read, self._step_s, self._gap_s = read, step_s, gap_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")
        self._began = time.monotonic()
        self._moved = self._began
        self._open: Gap | None = None
        self._gaps: list[Gap] = []
        self._samples = 0
        self._late_s = 0.0
        self._last: Reading | None = None
        self._first: Reading | None = None
        self._startup_ms: int | None = None

    def start(self) -> None:
        """Begin now: this is when the player was asked to play."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def moment(self) -> Moment:
        """Where the player is."""
        position_s, ahead_s = self._last or Reading(0.0, 0.0)
        return Moment(position_s, ahead_s, self._startup_ms is not None)

    @property
    def seen(self) -> Seen:
        """What was seen so far, a picture that stands still now with it."""
        gaps, standing = list(self._gaps), self._standing(time.monotonic())
        return Seen(
            self._startup_ms, gaps + ([standing] if standing else []), [], self._samples, self._late_s * 1000
        )

    def _watch(self) -> None:
        while not self._over.is_set():
            due = time.monotonic() + self._step_s
            reading = None
            with suppress(OSError, ValueError):
                reading = self._read()
            now = time.monotonic()
            self._note(reading, now, max(0.0, now - due))
            self._over.wait(max(0.0, due - now))

    def _note(self, reading: Reading | None, now: float, late_s: float) -> None:
        self._samples += 1
        self._late_s = max(self._late_s, late_s)
        if reading is None:
            return
        before, self._last = self._last, reading
        if self._startup_ms is None:
            self._first = self._first or reading
            if reading.position_s > max(self._first.position_s, 0.0):
                self._startup_ms, self._moved = round((now - self._began) * 1000), now
        elif before is not None and reading.position_s != before.position_s:
            standing = self._standing(now)
            if standing:
                self._gaps.append(standing)
            self._open, self._moved = None, now
        elif self._open is None:
            self._open = Gap(reading.position_s, 0, reading.ahead_s, late_s * 1000)
        else:
            self._open = self._open._replace(late_ms=max(self._open.late_ms, late_s * 1000))

    def _standing(self, now: float) -> Gap | None:
        still_s = now - self._moved
        return self._open._replace(ms=round(still_s * 1000)) if self._open and still_s > self._gap_s else None


class Desktop:
    """A player program; ``command`` makes its command line of the film's address."""

    def __init__(
        self,
        command: Callable[[str], list[str]],
        watcher: Watcher,
        folder: Path,
        hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch by ``watcher``; ``hang_up`` ends its connection."""
        self._command, self.watcher, self._folder = command, watcher, folder
        self._hang_up = hang_up
        self._process: subprocess.Popen[bytes] | None = None

    async def play(self, url: str) -> None:
        """Start the program on ``url``."""
        log = (self._folder / "player.log").open("wb")
        with log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
                self._command(url),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder)},
                start_new_session=True,
            )
        self.watcher.start()

    async def now(self) -> Moment:
        """Return where it is."""
        return self.watcher.moment

    async def seen(self) -> Seen:
        """Return what was seen so far; a program that ended by itself is an error."""
        seen = self.watcher.seen
        code = self._process.poll() if self._process else None
        return seen if code is None else seen._replace(errors=[f"the player ended with {code}"])

    def stop(self) -> None:
        """End the program."""
        self.watcher.stop()
        self._hang_up()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@asynccontextmanager
async def desktop(program: str, name: str) -> AsyncGenerator[Desktop]:
    """Lend mpv or VLC for one film; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="farcast-player-", ignore_cleanup_errors=True) as folder:
        player = (_mpv if name == "mpv" else _vlc)(program, Path(folder))
        try:
            yield player
        finally:
            await asyncio.to_thread(player.stop)


class _MpvRemote:
    """mpv's JSON IPC (mpv manual, section JSON IPC)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._rest = b""

    def read(self) -> Reading | None:
        """Return position and cache, None while nothing plays."""
        if self._socket is None:
            fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            fresh.settimeout(CALL_TIMEOUT_S)
            try:
                fresh.connect(str(self._path))
            except OSError:
                fresh.close()
                raise
            self._socket = fresh
        position, ahead = self._get("time-pos"), self._get("demuxer-cache-duration")
        return None if position is None else Reading(float(position), float(ahead or 0.0))

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()

    def _get(self, name: str) -> Any:  # noqa: ANN401 - JSON
        assert self._socket is not None
        self._socket.sendall(json.dumps({"command": ["get_property", name]}).encode() + b"\n")
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if not found:
                data = self._socket.recv(65_536)
                if not data:
                    raise OSError("mpv has ended")
                self._rest += data
                continue
            self._rest = rest
            answer = json.loads(line)
            if "error" in answer:
                return answer.get("data")


def _mpv(program: str, folder: Path) -> Desktop:
    path = folder / "mpv.sock"
    flags = ["--no-config", "--no-terminal", "--ao=null", "--vo=null", f"--input-ipc-server={path}"]
    flags += ["--cache=yes", f"--cache-secs={BUFFER_S}", f"--demuxer-readahead-secs={BUFFER_S}"]
    remote = _MpvRemote(path)
    watcher = Watcher(remote.read, 0.02, 0.25)
    return Desktop(lambda url: [program, *flags, url], watcher, folder, remote.close)


def _vlc(program: str, folder: Path) -> Desktop:
    """VLC tells its position a few times a second, so only longer gaps can be told from its own steps."""
    port = free_port()
    flags = ["--ignore-config", "--no-one-instance", "--no-video-title-show", "--vout=dummy", "--aout=dummy"]
    flags += [f"--adaptive-maxbuffer={BUFFER_S * 1000}", "--http-host=127.0.0.1", f"--http-port={port}"]
    flags += [f"--http-password={VLC_PASSWORD}"]
    login = base64.b64encode(f":{VLC_PASSWORD}".encode()).decode()
    wish = Request(
        f"http://127.0.0.1:{port}/requests/status.json", headers={"authorization": f"Basic {login}"}
    )

    def read() -> Reading | None:
        with urlopen(wish, timeout=CALL_TIMEOUT_S) as answer:  # noqa: S310 - loopback
            found = json.load(answer)
        if found["state"] != "playing" or found["length"] <= 0:
            return None
        return Reading(found["position"] * found["length"], 0.0)

    start = [program, "-I", "http"]
    if os.geteuid() == 0:  # VLC refuses root
        setpriv = shutil.which("setpriv")
        assert setpriv is not None, "VLC refuses root, and setpriv (util-linux) is not here"
        nobody = pwd.getpwnam("nobody")
        start = [setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *start]
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return Desktop(lambda url: [*start, *flags, url], Watcher(read, 0.05, 1.0), folder)
