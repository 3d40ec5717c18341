"""Hints by gossip: the box's side of its gossip process, which it starts, hears, bounds and replaces."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import RemoteError
from ...protocol.hint import GossipPlace
from .bucket import Bucket
from .pipe import (
    MESSAGE_LIMIT_BYTES,
    VERSION,
    Alive,
    Dial,
    Down,
    Heard,
    Shun,
    Tell,
    ToBox,
    ToProcess,
    Up,
    pack,
    pair,
    read_of_process,
)
from .restarts import Limits, Restarts

MISSING = (
    "libp2p is not installed for {python}; `pip install 'farcast[p2p]'` there, or name another "
    "in [hints] python; hints go by HTTP alone"
)
REASONS = ("crash", "killed", "missing", "port", "ended", "silent", "flood", "bad_message", "version")
STARTING_S = 60.0
SILENT_S = 30.0
WATCH_S = 1.0
FRAME_BURST, FRAME_PER_S = 256, 64.0
"""Of messages the process sends; it admits a quarter of that itself."""
AT_ONCE = 32
PEERS_WANTED = 3
CONTACT_FIRST_S, CONTACT_LAST_S = 2.0, 300.0
STDERR_BYTES, WORDS_S = 2_048, 1.0
PASSED = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""Of this process's environment: there may be secrets in the rest."""

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """How the process is run: by which Python, and where it listens; nowhere with an empty ``host``."""

    python: str
    host: str
    port: int


class Gossip:
    """A carrier of hints. ``hear(data, way, teller)`` takes them; ``contacts`` finds multiaddrs to dial."""

    way = "gossip"

    def __init__(
        self,
        net: bytes,
        place: Place,
        hear: Callable[[bytes, str, str], object],
        contacts: Callable[[], Awaitable[Sequence[str]]],
        registry: CollectorRegistry,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._net = net
        self._place = place
        self._hear = hear
        self._contacts = contacts
        self._clock = clock
        self._policy = Restarts(limits)
        self._told_again = asyncio.Event()
        self._link: socket.socket | None = None
        self._up: Up | None = None
        self._said_at = 0.0
        self._peers = 0
        self._verdict = ""
        self._judged = asyncio.Event()
        self._frames = Bucket(FRAME_BURST, FRAME_PER_S)
        self.why = ""
        """Why it ended the last time, in words."""
        self.pid = 0
        """Of the process while it runs."""
        self._restarts = Counter(
            "farcast_mesh_gossip_restarts", "Ends of the gossip process, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        for reason in REASONS:
            self._restarts.labels(reason)
        self._dropped = Counter(
            "farcast_mesh_gossip_dropped", "Messages for a gossip process that was not there or was behind.",
            registry=registry,
        )  # fmt: skip
        Gauge(
            "farcast_mesh_gossip_up", "1 while the gossip process runs and answers.", registry=registry
        ).set_function(lambda: float(self._up is not None))
        Gauge("farcast_mesh_gossip_peers", "Peers of the gossip process.", registry=registry).set_function(
            lambda: float(self._peers)
        )

    @property
    def state(self) -> str:
        """``up``, ``starting``, ``waiting`` (to be started again) or ``off`` (given up for a while)."""
        if self._policy.state == "running":
            return "up" if self._up else "starting"
        return self._policy.state

    @property
    def place(self) -> GossipPlace | None:
        """Where the process listens, None where nowhere."""
        up = self._up
        return GossipPlace(1, up.port, up.key) if up is not None and up.port else None

    def facts(self) -> dict[str, object]:
        """Return what a status shows of it."""
        return {"state": self.state, "pid": self.pid, "peers": self._peers, "why": self.why}

    def again(self) -> None:
        """Start it at once where it is off or waits: the operator says so."""
        self._policy.again()
        self._told_again.set()

    async def tell(self, hints: Sequence[bytes]) -> None:
        """Hand hints to the process."""
        for hint in hints:
            self._say(Tell(hint))

    def mute(self, teller: str) -> None:
        """Have the process shun somebody."""
        self._say(Shun(bytes.fromhex(teller)))

    async def run(self) -> None:
        """Keep the process running, as the policy says."""
        while True:
            await self._wait()
            self._policy.started(self._clock())
            reason = await self._live()
            self._restarts.labels(reason).inc()
            if reason == "missing":
                self._policy.impossible()
            else:
                self._policy.ended(self._clock())
            log.warning("the gossip process ended (%s: %s); it is %s now", reason, self.why, self.state)

    async def _wait(self) -> None:
        while (start_at := self._policy.start_at) is not None and start_at > self._clock():
            self._told_again.clear()
            pause_s = None if start_at == float("inf") else start_at - self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._told_again.wait()

    async def _live(self) -> str:
        """Run the process once; returns why it ended."""
        self._judged.clear()
        self._verdict, self.why, self._said_at = "", "", self._clock()
        self._frames = Bucket(FRAME_BURST, FRAME_PER_S)
        ours, theirs = pair()
        with closing(ours):
            try:
                process = await self._spawn(theirs.fileno())
            except OSError as error:
                self.why = f"{self._place.python or sys.executable} cannot be run: {error.strerror}"
                return "missing"
            finally:
                theirs.close()
            await self._attend(process, ours)
        return self._reason(process.returncode or 0)

    async def _attend(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        """Hear the process until it ends, or is judged; then it is dead and its last word heard."""
        loop = asyncio.get_running_loop()
        self._link, self.pid = ours, process.pid
        loop.add_reader(ours.fileno(), self._read, ours)
        ending, judging = loop.create_task(process.wait()), loop.create_task(self._judged.wait())
        noting = loop.create_task(self._note_words(process))
        beside = [loop.create_task(one) for one in (self._watch(), self._meet())]
        try:
            await asyncio.wait((ending, judging), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(ours.fileno())
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            await asyncio.wait((noting,), timeout=WORDS_S)
            for task in (ending, judging, noting, *beside):
                task.cancel()
            self._read_all(ours)  # its last word
            self._link, self._up, self._peers, self.pid = None, None, 0, 0

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        place = self._place
        return await asyncio.create_subprocess_exec(
            place.python or sys.executable,
            *("-P", "-m", "farcast.mesh.hints.process"),
            *(str(descriptor), self._net.hex(), place.host, str(place.port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(descriptor,),
            start_new_session=True,
            env={name: os.environ[name] for name in PASSED if name in os.environ},
        )

    def _reason(self, code: int) -> str:
        if self._verdict:
            return self._verdict
        if code < 0:
            self.why = f"by signal {signal.Signals(-code).name}"
            return "killed"
        self.why = self.why or f"exit status {code}"
        return "ended"

    def _judge(self, reason: str, why: str) -> None:
        """End the process for ``reason``; the first one counts."""
        if not self._verdict:
            self._verdict, self.why = reason, why
            self._judged.set()

    def _read(self, link: socket.socket) -> None:
        if not self._read_some(link):
            asyncio.get_running_loop().remove_reader(link.fileno())  # it has closed its end, and will end

    def _read_all(self, link: socket.socket) -> None:
        for _ in range(FRAME_BURST // AT_ONCE):
            if not self._read_some(link):
                return

    def _read_some(self, link: socket.socket) -> bool:
        """Take some messages, so that others on this loop have their turn; False at the end."""
        for _ in range(AT_ONCE):
            try:
                data = link.recv(MESSAGE_LIMIT_BYTES + 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            if not self._frames.take(self._clock()):
                self._judge("flood", "it said more than it may")
                return False
            try:
                self._take(read_of_process(data))
            except RemoteError as error:
                self._judge(error.reason, str(error))
                return False
        return True

    def _take(self, message: ToBox) -> None:
        self._said_at = self._clock()
        if isinstance(message, Heard):
            self._hear(message.hint, self.way, message.author.hex())
        elif isinstance(message, Alive):
            self._peers = message.peers
        elif isinstance(message, Down):
            missing = message.reason == "missing"
            python = self._place.python or sys.executable
            self._judge(message.reason, MISSING.format(python=python) if missing else message.why)
        elif message.version == VERSION:
            self._up = message
        else:
            self._judge("version", "its farcast is of another version than this box's")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self._clock() - self._said_at > (SILENT_S if self._up else STARTING_S):
                self._judge("silent", "it has said nothing for too long")

    async def _meet(self) -> None:
        """Have peers dialled while there are few."""
        pause_s = CONTACT_FIRST_S
        while True:
            if self._up is not None and self._peers < PEERS_WANTED:
                for address in await self._contacts():
                    self._say(Dial(address))
                pause_s = min(pause_s * 2, CONTACT_LAST_S)
            elif self._up is None:
                pause_s = CONTACT_FIRST_S
            await asyncio.sleep(pause_s)

    async def _note_words(self, process: asyncio.subprocess.Process) -> None:
        """Keep the pipe empty, and the last line said on it."""
        assert process.stderr is not None
        tail = b""
        while data := await process.stderr.read(STDERR_BYTES):
            tail = (tail + data)[-STDERR_BYTES:]
            lines = tail.decode(errors="replace").strip().splitlines()
            if lines and not self._verdict:
                self.why = lines[-1][:200]

    def _say(self, message: ToProcess) -> None:
        link = self._link
        try:
            if link is None:
                raise BlockingIOError
            link.send(pack(message))
        except OSError:
            self._dropped.inc()
