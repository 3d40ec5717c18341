"""A head start: the head of an answer leaves after a second, its body when that is here.

A player with a limit on the first byte gives a film up for good while every tier is gone, though its next
segment would come in time for its patience; a demuxer that opens the next segment before it reads the
present one stands still with media in its hands. Browsers tell a script of a head only with the first byte
of the body. Of a segment that one is known without any tier: it begins with a box of less than 16 MiB, whose
size is written in four bytes from the highest on (ISO/IEC 14496-12 section 4.2). Should the verified
bytes begin otherwise the answer is cut short, so no answer ends with a byte unproven (docs/adr/0039).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from ...protocol.errors import RemoteError

HEAD_S = 1.0
"""Under the 1.5 s that an impatient player gives a first byte, over what a tier's fault costs (400 ms)."""

LEAD = b"\0"
"""What every segment begins with."""

Opening = Coroutine[Any, Any, AsyncIterator[bytes]]
"""Brings the first bytes of a body, verified, and returns all of it."""


class HeadStart:
    """Opens bodies; those that take longer than ``head_s`` are handed out before they are open."""

    def __init__(self, head_s: float = HEAD_S) -> None:
        self._head_s = head_s
        self._openings: set[asyncio.Task[AsyncIterator[bytes]]] = set()

    async def body(self, opening: Opening, lead: bytes = b"") -> AsyncIterator[bytes]:
        """Return the body that ``opening`` brings, or one that waits for it and then is the same.

        A body that waits begins with ``lead`` at once, and goes on only where that was true.

        Raises:
            FarcastError: what ``opening`` raises in time; later the body raises it instead.

        """
        task = asyncio.get_running_loop().create_task(opening)
        self._openings.add(task)
        task.add_done_callback(self._opened)
        try:
            await asyncio.wait({task}, timeout=self._head_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        return _late(task, lead)

    async def close(self) -> None:
        """Give up what is still being opened."""
        tasks = [*self._openings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _opened(self, task: asyncio.Task[AsyncIterator[bytes]]) -> None:
        self._openings.discard(task)
        if not task.cancelled():
            task.exception()  # nobody asks where the player left before the body was begun


async def _late(opening: asyncio.Task[AsyncIterator[bytes]], lead: bytes) -> AsyncIterator[bytes]:
    if lead:
        yield lead
    async for chunk in await opening:
        if not chunk.startswith(lead):
            raise RemoteError("a segment that does not begin as segments do", reason="bad_segment")
        yield chunk[len(lead) :]
        lead = b""
