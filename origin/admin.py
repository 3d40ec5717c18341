"""The admin API of a running origin: ``POST /api/origin/{action}``.

A command that finds the home in use sends its work here and reads lines of JSON: progress while it
lasts, then one result or one problem.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from ..node.http.exchange import Answer, Exchange, Router
from ..protocol.errors import FarcastError, RefusedError, UsageError
from .office import Office

REQUEST_LIMIT_BYTES = 256 << 10
LINES_WAITING = 64
PROGRESS_EVERY_S = 0.2
BEAT_S = 15.0
MEDIA_TYPE = "application/x-ndjson"
LONG = frozenset({"publish", "release", "settle", "report", "payout_run", "backup"})
"""Actions of which only one may be at work at a time."""

log = logging.getLogger(__name__)


class OriginAdmin:
    """Lets the commands of this home do their work in the running origin's ``office``."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._long = asyncio.Lock()
        self._at_work: set[asyncio.Future[None]] = set()

    def routes(self, router: Router) -> None:
        """Add the admin routes to the loopback listener's ``router``."""
        router.route("POST", "/api/origin/{action}", self.act)

    async def act(self, exchange: Exchange) -> Answer:
        """Do one action and stream how it goes."""
        action = exchange.match["action"]
        try:
            arguments = msgspec.json.decode(await exchange.read(REQUEST_LIMIT_BYTES), type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise RefusedError(
                "the arguments are no JSON object", status=400, reason="bad_arguments"
            ) from error
        if action in LONG and self._long.locked():
            message = "the origin is publishing or settling already; try again when that is done"
            raise RefusedError(message, status=429, retry_after_s=30, reason="busy")
        return Answer(
            200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, self._lines(action, arguments)
        )

    async def _lines(self, action: str, arguments: Mapping[str, object]) -> AsyncIterator[bytes]:
        """Work in a thread and yield its progress, at times an empty line, and its end."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        waiting = threading.BoundedSemaphore(LINES_WAITING)

        def put(line: bytes | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, line)

        def progress(line: bytes) -> None:
            if waiting.acquire(blocking=False):  # a reader that sleeps misses progress, not the end
                put(line)

        async def work() -> None:
            try:
                if action in LONG:
                    async with self._long:
                        await asyncio.to_thread(self._work, action, arguments, progress, put)
                else:
                    await asyncio.to_thread(self._work, action, arguments, progress, put)
            finally:
                queue.put_nowait(None)

        task = asyncio.ensure_future(work())  # it goes on to its end even if the reader leaves
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    line = await queue.get()
            except TimeoutError:
                yield b"\n"
                continue
            if line is None:
                return
            if line.startswith(b'{"progress"'):
                waiting.release()
            yield line

    def _work(self, action: str, arguments: Mapping[str, object], progress: Any, put: Any) -> None:  # noqa: ANN401
        said_at = 0.0

        def report(stage: str, done: float, total: float = 1.0) -> None:
            nonlocal said_at
            now = time.monotonic()
            if now - said_at >= PROGRESS_EVERY_S or done >= total:
                said_at = now
                progress(_line({"progress": [stage, done, total]}))

        try:
            put(_line({"result": self._office.perform(action, arguments, report)}))
        except FarcastError as error:
            wrong_use = isinstance(error, UsageError)
            put(_line({"problem": {"detail": str(error), "reason": error.reason, "usage": wrong_use}}))
        except OSError as error:
            detail = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            put(_line({"problem": {"detail": detail, "reason": "disk", "usage": False}}))
        except Exception as error:
            log.exception("%s failed", action)
            detail = f"a bug in Farcast ({type(error).__name__}: {error}); the origin's log shows where"
            put(_line({"problem": {"detail": detail, "reason": "bug", "usage": False}}))


def _line(value: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
