"""One purge at one CDN: its calls made a few at a time, with patience where the CDN asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from ...node.http.dial import HttpDialer
from ...protocol.errors import RemoteError, UnreachableError
from ...protocol.ports import Reply, Source, TierName
from .adapter import Adapter, Call
from .secret import Secret

CALL_S = 15.0
ANSWER_LIMIT_BYTES = 64 << 10
TRIES = 4
PAUSE_S, PAUSE_MOST_S = 1.0, 60.0
_BUSY = frozenset({429, 502, 503, 504})

Progress = Callable[[int, int], None]
"""Hears how many paths of how many are purged."""


class Swept(NamedTuple):
    """How a purge went: ``trouble`` in a few words with its ``reason``, both empty where all was done.

    ``left`` are the paths that nothing has purged yet.
    """

    trouble: str
    reason: str
    left: tuple[str, ...]


class Sweep:
    """Purges paths and a tag at one zone; for one use."""

    def __init__(self, adapter: Adapter, key: Secret | None, dialer: HttpDialer, *, end: float) -> None:
        """Stop at ``end`` on the event loop's clock, whatever is left."""
        self._adapter = adapter
        self._fields = adapter.credentials(key.reveal()) if key else {}
        self._dialer = dialer
        self._end = end
        self._left: dict[str, None] = {}
        self._waiting = deque[Call]()
        self._trouble: tuple[str, str] = ("", "")

    async def run(self, paths: Sequence[str], tag: str, progress: Progress) -> Swept:
        """Make every call; the first that fails for good ends it. Never raises what Farcast raises."""
        self._left = dict.fromkeys(paths)
        calls = self._adapter.calls(paths, tag)
        self._waiting.extend(calls)
        if calls and not calls[0].covers:  # the tag takes nearly everything in one stroke
            await self._next()
        await asyncio.gather(*(self._work(len(paths), progress) for _ in range(self._adapter.at_once)))
        return Swept(*self._trouble, tuple(self._left))

    async def _work(self, total: int, progress: Progress) -> None:
        while self._waiting and not self._trouble[0]:
            await self._next()
            progress(total - len(self._left), total)

    async def _next(self) -> None:
        call = self._waiting.popleft()
        trouble = await self._attempt(call)
        if trouble[0]:
            self._trouble = self._trouble if self._trouble[0] else trouble
            return
        for path in call.covers:
            self._left.pop(path, None)

    async def _attempt(self, call: Call) -> tuple[str, str]:
        """Make one call, again where the CDN is busy or away; returns trouble and reason."""
        trouble = "there was no time left for it", "late"
        for tried in range(TRIES):
            pause_s = PAUSE_S * 2**tried
            try:
                reply = await self._ask(call)
            except UnreachableError as error:
                trouble = f"it does not answer: {error}", error.reason
            except RemoteError as error:
                return f"its answer makes no sense: {error}", error.reason
            else:
                why = self._adapter.trouble(reply.status, reply.body)
                if not why:
                    return "", ""
                trouble = why, f"status_{reply.status}"
                if reply.status not in _BUSY:
                    return trouble
                pause_s = max(pause_s, _retry_after_s(reply))
            if tried + 1 == TRIES or self._now() + pause_s >= self._end:
                break
            await asyncio.sleep(pause_s)
        return trouble

    async def _ask(self, call: Call) -> Reply:
        parts = urlsplit(call.url)
        source = Source(TierName.CDN, parts.netloc, f"{parts.scheme}://{parts.netloc}")
        return await self._dialer.request(
            source,
            call.method,
            call.url[len(source.address) :],
            body=call.body,
            headers={**self._fields, **dict(call.headers)},
            limit_bytes=ANSWER_LIMIT_BYTES,
            timeout_s=max(0.1, min(CALL_S, self._end - self._now())),
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _retry_after_s(reply: Reply) -> float:
    """Return the seconds an answer asks to wait, 0 where it names none."""
    text = reply.headers.get("retry-after", "").strip()
    return min(float(text), PAUSE_MOST_S) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0  # noqa: PLR2004 - a day is five digits
