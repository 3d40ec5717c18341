"""A worker: one more process that sends what is ready from the public port (``[listen] workers``).

It fills nothing, writes nothing and holds no lock of the home: it asks the main process once for
what answers a head, remembers that for a few seconds, and sends the files itself. Every other
connection goes to the main process, descriptor and all. It ends when the main process does.

Started by ``workers.Workers`` as ``python -m farcast.node.http.worker LISTENER CONTROL CONNECTIONS``.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable

from ..links import Links
from .bytes import ByteServer, Limits
from .connection import Connection
from .exchange import Answer, Router
from .files import FileCache
from .governor import Governor, Lan, Rules, State, networks_of
from .head import Head
from .notice import Herald
from .ranges import FilePart
from .reply import Reply
from .tally import Tally
from .turnloop import run
from .workerlink import Ask, Counts, Holds, Link, Moved, Told

REPORT_S = 1.0
DRAIN_S = 2.0
ASKS_KEPT = 4_096


class Worker:
    """One worker process, from start to end."""

    def __init__(self, listener: socket.socket, control: socket.socket, connections: int) -> None:
        """Serve on ``listener``, in the service of whoever holds the other end of ``control``."""
        self._link = Link(control)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._tally = Tally()
        self._refusals: Counter[str] = Counter()
        self._epoch = 0
        self._reported = 0
        router = Router(lambda _: True, refused=self._count)
        governor = Governor()
        router.tell = Herald(lambda peer: governor.local(peer))  # noqa: PLW0108 - networks change
        self._server = _Server(
            router,
            lambda _: None,
            self,
            files=FileCache(),
            tally=self._tally,
            tls=True,
            limits=Limits(connections=connections),
            epoch=lambda: self._epoch,
            governor=governor,
        )
        self._server.serve(self._link)
        self._listener: socket.socket | None = listener
        self._loop.add_reader(self._link.fileno(), self._hear)

    # -- what ByteServer wants of the place connections go to

    @property
    def connections(self) -> int:
        """None stays here that is not the server's."""
        return 0

    def take(
        self, sock: socket.socket, peer: str, received: bytes, *, secure: bool, gone: Callable[[], None]
    ) -> None:
        """Give a connection to the main process."""
        del secure
        try:
            if not self._link.send(Moved(peer, received), sock):
                self._count("main_process_busy")
        except OSError:
            self._ended.set()
        sock.close()
        gone()

    async def close(self) -> None:
        """Nothing is on its way."""

    # -- life

    async def run(self) -> None:
        """Work until the main process ends or says so."""
        self._loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the whole group; the main process ends us
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(REPORT_S):
                    await self._ended.wait()
            except TimeoutError:
                self._report()
        await self._server.close(DRAIN_S)
        self._report()
        self._loop.remove_reader(self._link.fileno())
        self._link.close()

    def _count(self, reason: str) -> None:
        self._refusals[reason] += 1

    def _hear(self) -> None:
        while True:  # to the end: what is still under way may wait for an answer
            try:
                received = self._link.receive()
            except EOFError:
                self._loop.remove_reader(self._link.fileno())
                self._ended.set()
                return
            if received is None:
                return
            message = received.message
            if isinstance(message, Told):
                self._server.told(message)
            elif isinstance(message, Holds):
                self._hold(message)

    def _hold(self, holds: Holds) -> None:
        self._epoch = holds.epoch
        governor = self._server.governor
        rules = Rules(
            holds.upload_bytes_s,
            holds.connections,
            holds.client_connections,
            holds.client_requests_s,
            holds.client_burst,
        )
        if holds.lan != networks_of(governor.local):
            governor.local = Lan(holds.lan)
        if holds.served is not None and (governor.served is None or governor.served.terms != holds.served):
            governor.served = Links(*holds.served, tunnels=False)
        if rules != governor.rules:
            governor.set_rules(rules, self._loop.time())
        governor.set_state(State(holds.state), holds.retry_after_s)
        if self._listener is not None:  # nobody is served before the rules are known
            listener, self._listener = self._listener, None
            self._server.listen(listener)

    def _report(self) -> None:
        """Tell what was counted since; what cannot be sent now is told next time."""
        tally, governor = self._tally, self._server.governor
        counts = Counts(
            list(tally.classes),
            tally.sent_bytes,
            governor.wan.bytes,
            governor.lan.bytes,
            dict(self._refusals),
            self._server.open_connections,
        )
        quiet = not (any(counts.classes) or counts.sent_bytes or counts.wan_bytes or counts.refusals)
        if quiet and counts.connections == self._reported:
            return
        try:
            if not self._link.send(counts):
                return
        except OSError:
            self._ended.set()
            return
        tally.classes = [0] * len(tally.classes)
        tally.sent_bytes = governor.wan.bytes = governor.lan.bytes = 0
        self._refusals.clear()
        self._reported = counts.connections


class _Server(ByteServer):
    """The byte server of a worker: replies it does not know come from the main process."""

    def serve(self, link: Link) -> None:
        """Ask over ``link`` from now on."""
        self._link = link
        self._asked: dict[int, tuple[Connection, Head]] = {}
        self._number = 0

    def ask(self, head: Head, connection: Connection) -> bool:
        """Ask for the reply to ``head``."""
        if head.length or head.method not in ("GET", "HEAD") or len(self._asked) >= ASKS_KEPT:
            return False
        self._number += 1
        try:
            if not self._link.send(Ask(self._number, connection.head_bytes(head))):
                return False
        except OSError:
            return False
        self._asked[self._number] = connection, head
        return True

    def told(self, told: Told) -> None:
        """Give a connection the reply that the main process made."""
        asked = self._asked.pop(told.number, None)
        if asked is None:
            return
        connection, head = asked
        self.readiness.begin()
        if not told.status:
            connection.answered(None)
            return
        body = told.body or [FilePart(*part) for part in told.parts]
        answer = Answer(told.status, told.headers, body)
        keep, bodiless = head.keep_alive, head.method == "HEAD"
        connection.answered(Reply(answer, size=head.size, keep=keep, bodiless=bodiless))


async def _work(listener: int, control: int, connections: int) -> None:
    accept = socket.socket(fileno=listener)
    accept.setblocking(False)
    link = socket.socket(fileno=control)
    link.setblocking(False)
    await Worker(accept, link, connections).run()


def main(arguments: list[str]) -> None:
    """Be a worker."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    run(_work(*map(int, arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
