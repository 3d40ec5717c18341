"""The event loop of a process that serves: the sockets of the byte protocol wait in its own ``epoll``.

A loop that sees them as one nested descriptor asks the kernel twice a turn and runs a handle for it.
Any other selector loop serves as well, a twentieth dearer (see ``readiness.py``).
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

GONE = select.EPOLLHUP | select.EPOLLERR
"""Both halves have ended: whatever is still sent reaches nobody."""
ENDING = select.EPOLLRDHUP | GONE
INPUT = select.EPOLLIN
READ = INPUT | ENDING
WRITE = select.EPOLLOUT | GONE
EVENTS = 256
"""How many are taken from the kernel at once."""

Turn = Callable[[int], None]
"""Called with the events of one socket; 0 where it had asked for another turn."""
Failed = Callable[[Exception], None]
Result = TypeVar("Result")


class TurnSelector(selectors.EpollSelector):
    """A selector that gives some sockets their turn while it selects; the rest is told as usual."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        super().__init__()
        self.epoll = select.epoll.fromfd(os.dup(self.fileno()))
        """The selector's own, by another descriptor."""
        self.turns: dict[int, Turn] = {}
        self.begin: list[Callable[[], None]] = []
        """Called before the first turn of a selection."""
        self.failed: Failed | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as ``EpollSelector`` does, and give those their turn who are ready and have one."""
        try:
            found = self.epoll.poll(timeout, EVENTS)
        except InterruptedError:
            return []
        ready = list[tuple[selectors.SelectorKey, int]]()
        turns, begun = self.turns, False
        for fd, events in found:
            turn = turns.get(fd)
            if turn is None:
                self._tell(ready, fd, events)
                continue
            if not begun:
                begun = True
                for begin in self.begin:
                    begin()
            try:
                turn(events)
            except Exception as error:  # noqa: BLE001 - as asyncio does with a reader: told, and the loop goes on
                if self.failed is not None:
                    self.failed(error)
        return ready

    def close(self) -> None:
        """Close both descriptors."""
        self.epoll.close()
        super().close()

    def _tell(self, ready: list[tuple[selectors.SelectorKey, int]], fd: int, events: int) -> None:
        key = self.get_map().get(fd)
        if key is not None:  # else an earlier turn of this selection ended it
            reads = selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
            writes = selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0
            ready.append((key, (reads | writes) & key.events))


class TurnLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop on a ``TurnSelector``."""

    def __init__(self) -> None:
        """Make the selector, too."""
        self.selector = TurnSelector()
        super().__init__(self.selector)
        self.selector.failed = lambda error: failed(self, error)


def failed(loop: asyncio.AbstractEventLoop, error: Exception) -> None:
    """Tell of a turn that failed, as asyncio tells of a reader."""
    loop.call_exception_handler({"message": "A connection's turn failed", "exception": error})


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` as ``asyncio.run`` does, on a ``TurnLoop``."""
    with asyncio.Runner(loop_factory=TurnLoop) as runner:
        return runner.run(main)
