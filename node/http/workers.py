"""The worker processes of the public port, seen from the main process: started, answered, counted.

Every process has its own listening socket of the same number (SO_REUSEPORT); the main process holds
them all, so that connections wait in the kernel while a worker that crashed is started again. What
the operator's contract allows is divided evenly: with N processes each keeps an N-th of the rates
and limits, so that together they never exceed them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from contextlib import suppress

from ...mesh.child.environment import passed_on
from ...protocol.errors import FarcastError
from .bytes import ByteServer
from .exchange import Answer
from .governor import Governor, networks_of
from .head import parse_head
from .ranges import negotiate
from .tally import HttpMetrics, Tally
from .workerlink import Ask, Counts, Holds, Link, Moved, Told, pair

_LOG = logging.getLogger(__name__)

HOLDS_S = 1.0
"""How often workers are told the epoch and the rules; what was taken down is gone from them as soon."""
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 30.0
STEADY_S = 60.0
STOP_S = 5.0


class Workers:
    """Runs ``len(listeners)`` workers beside ``server``; use ``start`` and ``close``."""

    def __init__(
        self,
        listeners: list[socket.socket],
        server: ByteServer,
        governor: Governor,
        metrics: HttpMetrics,
    ) -> None:
        """Answer workers as ``server`` would answer; ``governor`` is the main process's."""
        self._listeners = listeners
        self._server = server
        self._governor = governor
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []
        self._links: list[Link] = []
        self._open: dict[Link, int] = {}
        self._told: dict[Link, Holds] = {}
        self._untold: dict[Link, list[int]] = {}
        """Questions whose answers found a link full: at most what a worker asks at once."""
        self._epoch = 0
        self._seen: object = None

    @property
    def connections(self) -> int:
        """How many connections the workers have open, as last reported."""
        return sum(self._open.values())

    def start(self) -> None:
        """Start every worker."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(listener)) for listener in self._listeners]
        self._tasks.append(loop.create_task(self._tell()))

    async def close(self) -> None:
        """End every worker and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    async def _keep(self, listener: socket.socket) -> None:
        """Start a worker again whenever it ends."""
        loop, retry_s = asyncio.get_running_loop(), RETRY_FIRST_S
        while True:
            started = loop.time()
            try:
                await self._run(listener)
            except Exception:  # noqa: BLE001 - whatever it was, what waits at this listener needs somebody
                _LOG.exception("a worker process failed")
            self._metrics.refused("worker_ended")
            if loop.time() - started > STEADY_S:
                retry_s = RETRY_FIRST_S
            _LOG.warning("a worker process ended; starting it again in %.1f s", retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)

    async def _run(self, listener: socket.socket) -> None:
        link, theirs = pair()
        loop = asyncio.get_running_loop()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "farcast.node.http.worker"),
                *(str(number) for number in (listener.fileno(), theirs.fileno())),
                str(self._server.limits.connections),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(listener.fileno(), theirs.fileno()),
                env=passed_on(),
            )
        except BaseException:
            link.close()
            raise
        finally:
            theirs.close()
        self._links.append(link)
        loop.add_reader(link.fileno(), self._hear, link)
        self._say(link)
        try:
            await process.wait()
        finally:
            loop.remove_reader(link.fileno())
            self._links.remove(link)
            if process.returncode is None:
                await self._stop(process)
            self._hear_all(link)  # its last counts
            self._open.pop(link, None)
            self._told.pop(link, None)
            self._untold.pop(link, None)
            link.close()

    @staticmethod
    async def _stop(process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _tell(self) -> None:
        while True:
            for link in list(self._links):
                self._say(link)
                self._say_again(link)
            await asyncio.sleep(HOLDS_S)

    def _say(self, link: Link) -> None:
        epoch = self._server.replies.begin(asyncio.get_running_loop().time())
        if epoch != self._seen:
            self._seen = epoch
            self._epoch += 1
        governor = self._governor
        rules = governor.rules  # the main process's own share, which is everybody's
        holds = Holds(
            self._epoch,
            governor.state.value,
            governor.retry_after_s,
            rules.upload_bytes_s,
            rules.connections,
            rules.client_connections,
            rules.client_requests_s,
            rules.client_burst,
            networks_of(governor.local),
            None if governor.served is None else governor.served.terms,
        )
        if self._told.get(link) != holds:
            with suppress(OSError):  # a worker that has just ended is started again
                if link.send(holds):
                    self._told[link] = holds

    def _hear(self, link: Link) -> None:
        if not self._hear_all(link):
            asyncio.get_running_loop().remove_reader(link.fileno())

    def _hear_all(self, link: Link) -> bool:
        for _ in range(64):  # others on this loop have their turn between
            try:
                received = link.receive()
            except EOFError:
                return False
            if received is None:
                return True
            message = received.message
            if isinstance(message, Ask):
                self._answer(link, message)
            elif isinstance(message, Counts):
                self._count(link, message)
            elif isinstance(message, Moved) and received.sock is not None:
                self._server.adopt(received.sock, message.peer, message.received)
        return True

    def _answer(self, link: Link, ask: Ask) -> None:
        told = Told(ask.number)
        answer = _answer_to(self._server, ask.head)
        if answer is not None:
            if isinstance(answer.body, bytes):
                told = Told(ask.number, answer.status, answer.headers, [], answer.body)
            elif isinstance(answer.body, list | tuple):
                parts = [(part.path, part.offset, part.length) for part in answer.body]
                told = Told(ask.number, answer.status, answer.headers, parts)
        with suppress(OSError):
            if not link.send(told) and not link.send(Told(ask.number)):
                self._untold.setdefault(link, []).append(ask.number)

    def _say_again(self, link: Link) -> None:
        """Give up to the main process what could not be answered: each connection still waits for it."""
        waiting = self._untold.pop(link, [])
        with suppress(OSError):
            while waiting and link.send(Told(waiting[-1])):
                waiting.pop()
        if waiting:
            self._untold[link] = waiting

    def _count(self, link: Link, counts: Counts) -> None:
        tally: Tally = self._metrics.carrier("tcp")
        for first, count in enumerate(counts.classes):
            tally.classes[first] += count
        tally.sent_bytes += counts.sent_bytes
        self._governor.wan.bytes += counts.wan_bytes
        self._governor.lan.bytes += counts.lan_bytes
        for reason, count in counts.refusals.items():
            self._metrics.refused(reason, count)
        self._open[link] = counts.connections


def _answer_to(server: ByteServer, data: bytes) -> Answer | None:
    """Return what ``server`` would answer to a whole head from what is ready."""
    try:
        head = parse_head(data)
    except FarcastError:
        return None
    if head is None or head.length or not server.router.allowed(head.host):
        return None
    try:
        answer = server.lookup(head)
        return None if answer is None else negotiate(answer, head.method, head.headers)
    except Exception:  # noqa: BLE001 - a look-up's bug must not leave a client of the worker waiting
        _LOG.exception("a look-up failed; the connection is answered here")
        return None
