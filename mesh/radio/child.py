"""A supervised child: a program of ours in its own process, heard by datagrams, bounded, ended and replaced.

Whatever it dies of, it is started again: a second later at first, ever later where it does not last, and
after an hour where it says that it cannot run at all. Nothing it does disturbs the box.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...protocol.errors import RemoteError
from .pipe import WORD_LIMIT_BYTES, pair

FIRST_S, LAST_S = 1.0, 600.0
"""How long after its end it is started again: twice as long each time that it did not last."""
STEADY_S = 120.0
IMPOSSIBLE_S = 3_600.0
STARTING_S, SILENT_S = 60.0, 30.0
WATCH_S, ENDING_S = 1.0, 2.0
FRAMES_PER_S = 64
"""A child that says more than so many messages in a second is broken."""
PASSED = ("PATH", "LANG", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "LD_LIBRARY_PATH")
"""Of this process's environment: there may be secrets in the rest."""

log = logging.getLogger(__name__)


class Child:
    """Runs ``python -m MODULE FD WORDS...``; ``take`` is given each datagram, and why it ended ``ended``.

    ``take`` raises ``RemoteError`` for a message that none is, and returns why the child says that it ends,
    empty while it does not. Of ``impossible`` reasons it is not soon tried again.
    """

    def __init__(
        self,
        name: str,
        python: str,
        module: str,
        words: Sequence[str],
        take: Callable[[bytes], str],
        ended: Callable[[str], object],
        *,
        impossible: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._command = (python or sys.executable, "-P", "-m", module)
        self._words = tuple(words)
        self._take, self._ended = take, ended
        self._impossible = impossible
        self._clock = clock
        self._link: socket.socket | None = None
        self._judged = asyncio.Event()
        self._reason = ""
        self._said_at = 0.0
        self._second, self._frames = 0, 0
        self.pid = 0
        """Of the process while it runs."""
        self.spoke = False
        """Whether the one that runs has said something."""

    def say(self, datagram: bytes) -> bool:
        """Hand over a datagram; False where nobody takes it now."""
        try:
            return self._link is not None and self._link.send(datagram) > 0
        except OSError:
            return False

    async def run(self) -> None:
        """Keep it running until cancelled."""
        pause_s = FIRST_S
        while True:
            begun = self._clock()
            reason = await self._live()
            lasted = self._clock() - begun >= STEADY_S
            pause_s = IMPOSSIBLE_S if reason in self._impossible else FIRST_S if lasted else pause_s
            self._ended(reason)
            log.warning(
                "the %s process ended (%s); it is started again in %.0f s", self._name, reason, pause_s
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_S)

    async def _live(self) -> str:
        """Run it once; returns why it ended."""
        ours, theirs = pair()
        self._judged.clear()
        self._reason, self._said_at, self.spoke = "", self._clock(), False
        try:
            process = await self._spawn(theirs.fileno())
        except OSError:
            ours.close()
            return "missing"
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        self._link, self.pid = ours, process.pid
        loop.add_reader(ours.fileno(), self._read, ours)
        work = [asyncio.ensure_future(one) for one in (process.wait(), self._judged.wait(), self._watch())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            loop.remove_reader(ours.fileno())
            if self._hung_up:  # its end of the pipe goes first when a process ends
                await asyncio.wait(work[:1], timeout=ENDING_S)
            code = process.returncode
        finally:
            for task in work:
                task.cancel()
            loop.remove_reader(ours.fileno())
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self._read(ours)  # its last word
            self._link, self.pid, self.spoke = None, 0, False
            ours.close()
        if code is None or self._reason not in ("", "closed"):
            return self._reason
        return "killed" if code == -signal.SIGKILL else "crash"

    @property
    def _hung_up(self) -> bool:
        return self._reason == "closed"

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            str(descriptor),
            *self._words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
            start_new_session=True,
            env={name: os.environ[name] for name in PASSED if name in os.environ},
        )

    def _read(self, link: socket.socket) -> None:
        """Take what it says, as much as may be said in a second, so that others have their turn."""
        for _ in range(FRAMES_PER_S):
            try:
                data = link.recv(1 + WORD_LIMIT_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._judge("closed")
                return
            self._said_at, self.spoke = self._clock(), True
            second = int(self._said_at)
            self._second, self._frames = second, self._frames + 1 if second == self._second else 1
            try:
                self._judge("flood" if self._frames > FRAMES_PER_S else self._take(data))
            except RemoteError as error:
                self._judge(error.reason)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self._clock() - self._said_at > (SILENT_S if self.spoke else STARTING_S):
                self._judge("silent")
                return

    def _judge(self, reason: str) -> None:
        """End it for a reason that is not empty; what it said itself, or else the first one, counts."""
        if reason and self._reason in ("", "closed"):
            self._reason = reason
        if reason:
            self._judged.set()
