"""The patch bay: every line and the tap, in one thread of their own, switched from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, Self, TypeVar

from farcast.tests.browser.line import Fault, Line, Place
from farcast.tests.browser.tap import Tap

CALL_TIMEOUT_S = 10.0
STEP_S = 0.01

T = TypeVar("T")


class PatchBay:
    """A context: its thread runs inside; ``late_s`` is how late this machine woke it at worst."""

    def __init__(self) -> None:
        self.tap = Tap()
        self.lines: dict[str, Line] = {}
        self.late_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="patch bay")

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self.tap.open())
        self._clock = asyncio.run_coroutine_threadsafe(self._watch_clock(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.cancel()
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lay(self, name: str, port: int, target: Place) -> None:
        """Lay the line to one box, listening at ``port``."""
        line = self.lines[name] = Line(port, target)
        self._call(line.open())

    def switch(self, names: Iterable[str], fault: Fault) -> None:
        """Make the named lines so, all at the same moment."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self.lines[name].switch(fault) for name in names))

        self._call(all_of_them())

    def restore(self) -> None:
        """Let every line carry again."""
        self.switch(self.lines, Fault.NONE)

    def point(self, target: Place) -> None:
        """Let the tap carry to this gateway, and forget what was asked and how late the machine was."""

        async def there() -> None:
            self.tap.point(target)
            self.late_s = 0.0

        self._call(there())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _close(self) -> None:
        await self.tap.close()
        for line in self.lines.values():
            await line.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_clock(self) -> None:
        while True:
            due = self._loop.time() + STEP_S
            await asyncio.sleep(STEP_S)
            self.late_s = max(self.late_s, self._loop.time() - due)
