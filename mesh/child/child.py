"""A supervised child: a program of ours in its own process, heard by datagrams, bounded, ended and replaced.

It talks to strangers, so whatever it says is believed no more than them, and nothing it does disturbs the
box. Whatever it dies of, it is started again as ``restarts.py`` says.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...protocol.errors import RemoteError
from ..bucket import Bucket
from .environment import passed_on
from .restarts import Limits, Restarts

STARTING_S, SILENT_S, ENDING_S = 60.0, 30.0, 2.0
"""How long it may say nothing: at first, later, and once its end of the pipe is closed."""
WATCH_S = 1.0
FRAME_BURST, FRAME_PER_S = 256, 64.0
"""Of messages it sends."""
AT_ONCE = 32
WORDS_BYTES, WORDS_READ_BYTES = 2_048, 256 << 10
"""Of what it says to people: so much is kept, and so much, more than a socket holds, read at once."""
REASONS = ("missing", "ended", "killed", "closed", "silent", "flood", "bad_message")
"""Why any child ends; what it says itself comes on top."""

log = logging.getLogger(__name__)


class Program(NamedTuple):
    """What is run: ``python -m MODULE FD WORDS...``, by this Python where ``python`` is empty."""

    name: str
    python: str
    module: str
    words: Sequence[str]
    message_limit_bytes: int
    passed: Sequence[str] = ()
    """Of this process's environment, besides what each is given."""
    impossible: frozenset[str] = frozenset({"missing"})
    """Reasons for which it is not soon tried again."""


class Child:
    """Runs a program; ``take`` is given each datagram, and why it ended ``ended``.

    ``take`` raises ``RemoteError`` for a message that none is, and calls ``judge`` for one by which the
    child cannot be used. ``beside`` runs as long as each life.
    """

    def __init__(
        self,
        program: Program,
        take: Callable[[bytes], object],
        ended: Callable[[str], object],
        *,
        beside: Callable[[], Coroutine[Any, Any, object]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._program = program
        self._take, self._ended, self._beside = take, ended, beside
        self._policy = Restarts(limits)
        self._told_again = asyncio.Event()
        self._link: socket.socket | None = None
        self._judged = asyncio.Event()
        self._reason, self._words = "", b""
        self._said_at, self._spoke, self._hung_up = 0.0, False, False
        self._frames = Bucket(FRAME_BURST, FRAME_PER_S)
        self.python = program.python or sys.executable
        self.why = ""
        """Why it ended the last time, in words."""
        self.pid = 0
        """Of the process while it runs."""

    @property
    def state(self) -> str:
        """``running``, ``waiting`` (to be started again) or ``off`` (given up for a while)."""
        return self._policy.state

    def again(self) -> None:
        """Start it at once where it is off or waits: the operator says so."""
        self._policy.again()
        self._told_again.set()

    def say(self, datagram: bytes) -> bool:
        """Hand over a datagram; False where nobody takes it now."""
        try:
            return self._link is not None and self._link.send(datagram) > 0
        except OSError:
            return False

    def judge(self, reason: str, why: str) -> None:
        """End it for ``reason``; the first one counts."""
        if not self._reason:
            self._reason, self.why = reason, why
            self._judged.set()

    async def run(self) -> None:
        """Keep it running, as the policy says, until cancelled."""
        while True:
            await self._wait()
            self._policy.started(time.monotonic())
            await self._live()
            if self._reason in self._program.impossible:
                self._policy.impossible(time.monotonic())
            else:
                self._policy.ended(time.monotonic())
            self._ended(self._reason)
            name, why = self._program.name, self.why
            log.warning("the %s process ended (%s: %s); it is %s now", name, self._reason, why, self.state)

    async def _wait(self) -> None:
        while (start_at := self._policy.start_at) is not None and start_at > time.monotonic():
            self._told_again.clear()
            pause_s = None if start_at == float("inf") else start_at - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._told_again.wait()

    async def _live(self) -> None:
        """Run it once, until it is judged."""
        self._judged.clear()
        self._reason, self._words = "", b""
        self._said_at, self._spoke, self._hung_up = time.monotonic(), False, False
        self._frames = Bucket(FRAME_BURST, FRAME_PER_S)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words, errors = socket.socketpair()  # a pipe of asyncio's would have it wait for grandchildren too
        with ours, words:
            ours.setblocking(False)
            words.setblocking(False)
            try:
                process = await self._spawn(theirs.fileno(), errors.fileno())
            except OSError as error:
                self.judge("missing", f"{self.python} cannot be run: {error.strerror}")
                return
            finally:
                theirs.close()
                errors.close()
            await self._attend(process, ours, words)
        code = process.returncode or 0
        if code < 0:
            self.judge("killed", f"by a signal: {signal.strsignal(-code)}")
        lines = self._words.decode(errors="replace").strip().splitlines()
        self.judge("ended", lines[-1][:200] if lines else f"exit status {code}")

    async def _attend(
        self, process: asyncio.subprocess.Process, ours: socket.socket, words: socket.socket
    ) -> None:
        """Hear the process until it ends, or is judged; then it is dead and its last word heard."""
        loop = asyncio.get_running_loop()
        self._link, self.pid = ours, process.pid
        loop.add_reader(ours.fileno(), self._read, ours)
        loop.add_reader(words.fileno(), self._note_words, words)
        ending, judging = loop.create_task(process.wait()), loop.create_task(self._judged.wait())
        beside = [loop.create_task(one()) for one in (self._watch, self._beside) if one is not None]
        try:
            await asyncio.wait((ending, judging), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(ours.fileno())
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
            await process.wait()
            for task in (ending, judging, *beside):
                task.cancel()
            self._note_words(words)
            loop.remove_reader(words.fileno())
            for _ in range(FRAME_BURST // AT_ONCE):
                if not self._read_some(ours):  # its last word
                    break
            self._link, self.pid = None, 0

    async def _spawn(self, descriptor: int, errors: int) -> asyncio.subprocess.Process:
        program = self._program
        return await asyncio.create_subprocess_exec(
            *(self.python, "-P", "-m", program.module, str(descriptor), *program.words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(descriptor,),
            start_new_session=True,
            env=passed_on(*program.passed),
        )

    def _read(self, link: socket.socket) -> None:
        if not self._read_some(link):
            asyncio.get_running_loop().remove_reader(link.fileno())
            self._said_at, self._hung_up = time.monotonic(), True

    def _read_some(self, link: socket.socket) -> bool:
        """Take some messages, so that others on this loop have their turn; False at the end."""
        for _ in range(AT_ONCE):
            try:
                data = link.recv(self._program.message_limit_bytes + 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._said_at, self._spoke = time.monotonic(), True
            if not self._frames.take(self._said_at):
                self.judge("flood", "it said more than it may")
                return False
            try:
                self._take(data)
            except RemoteError as error:
                self.judge(error.reason, str(error))
                return False
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            quiet_s = time.monotonic() - self._said_at
            if self._hung_up and quiet_s > ENDING_S:
                self.judge("closed", "it closed its end of the pipe and went on")
            elif quiet_s > (SILENT_S if self._spoke else STARTING_S):
                self.judge("silent", "it has said nothing for too long")

    def _note_words(self, words: socket.socket) -> None:
        """Keep the end of what it says to people."""
        try:
            data = words.recv(WORDS_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(words.fileno())
        self._words = (self._words + data)[-WORDS_BYTES:]
