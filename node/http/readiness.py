"""Edge-triggered readiness of many sockets, straight from the kernel to their connections.

asyncio asks the kernel to begin and end every wait (two system calls an answer) and runs each event
through a handle of its own (microseconds, and a kilobyte a connection). Here a socket is registered
once for its life, and one ``epoll_wait`` a turn gives all events to their connections: that of a
``TurnLoop``, or one that any other loop sees as a single descriptor. The price: whoever is told that a
socket is ready must read or write until the kernel says "no more".
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from .turnloop import EVENTS, Turn, TurnLoop, failed

_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Readiness:
    """Watches sockets for one server; ``now`` is the loop's time at the start of this turn."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, begun: Callable[[float], object] = lambda _: None
    ) -> None:
        """Watch nothing yet; ``begun`` hears of each turn, and the time, before anybody has one."""
        self.now = loop.time()
        self._loop = loop
        self._begun = begun
        self._again: dict[int, None] = {}
        """In order, each once: who sends on while it waits has no more turns than others."""
        self._selector = loop.selector if isinstance(loop, TurnLoop) else None
        if self._selector is not None:
            self._epoll, self._turns = self._selector.epoll, self._selector.turns
            self._selector.begin.append(self.begin)
        else:
            self._epoll, self._turns = select.epoll(), {}
            loop.add_reader(self._epoll.fileno(), self._turn)

    def begin(self) -> None:
        """Look at the clock: a turn begins."""
        self.now = self._loop.time()
        try:
            self._begun(self.now)
        except Exception as error:  # noqa: BLE001 - the turns are those of others
            failed(self._loop, error)

    def watch(self, fd: int, turn: Turn) -> None:
        """Call ``turn`` whenever ``fd`` becomes readable or writable, what it is now included."""
        self._turns[fd] = turn
        self._epoll.register(fd, _ALL)

    def change(self, fd: int, turn: Turn) -> None:
        """Call ``turn`` for ``fd`` from now on."""
        self._turns[fd] = turn

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer; call it before the socket is closed or moves."""
        if self._turns.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def again(self, fd: int) -> None:
        """Give ``fd`` another turn after the others had theirs."""
        if not self._again:
            self._loop.call_soon(self._repeat)
        self._again[fd] = None

    def close(self) -> None:
        """Stop watching; every socket has been forgotten before."""
        if self._selector is not None:
            if self.begin in self._selector.begin:
                self._selector.begin.remove(self.begin)
        elif not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _turn(self) -> None:
        self.begin()
        turns: dict[int, Turn] = self._turns
        for fd, events in self._epoll.poll(0, EVENTS):
            turn = turns.get(fd)
            if turn is not None:  # else an earlier event of this turn ended it
                self._take(turn, events)

    def _repeat(self) -> None:
        self.begin()
        waiting, self._again = self._again, {}
        for fd in waiting:
            turn = self._turns.get(fd)
            if turn is not None:
                self._take(turn, 0)

    def _take(self, turn: Turn, events: int) -> None:
        try:
            turn(events)
        except Exception as error:  # noqa: BLE001 - the turns of the others are theirs
            failed(self._loop, error)
