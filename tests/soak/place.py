"""A place: a thread with an event loop inside a network namespace.

Threads and processes that are begun there are there too, so that players, admin calls and whole boxes
need no program of their own to get in.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
_NEW_NETWORK = 0x40000000
"""``CLONE_NEWNET`` (setns(2)); ``os.setns`` came with Python 3.12."""


class Place:
    """Use as ``with Place("name") as place``; the namespace is one of ``ip netns``."""

    def __init__(self, space: str) -> None:
        self.space = space
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name=space, daemon=True)
        self._trouble: OSError | None = None
        self._entered = threading.Event()

    def __enter__(self) -> Self:
        """Go in; raises ``OSError`` where that is not allowed."""
        self._thread.start()
        self._entered.wait()
        if self._trouble is not None:
            self._thread.join()
            self._loop.close()
            raise self._trouble
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is under way there, and leave."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` there; cancelled with who waits for it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that blocks, in a thread there."""
        return await self.do(asyncio.to_thread(work, *args, **kwargs))

    def _live(self) -> None:
        try:
            _enter(Path("/run/netns", self.space))
        except OSError as error:
            self._trouble = error
        self._entered.set()
        if self._trouble is None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_forever()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


def _enter(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    space = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(space, _NEW_NETWORK) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(space)
