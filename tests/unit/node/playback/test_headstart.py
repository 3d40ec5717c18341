from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from farcast.node.playback.headstart import HeadStart
from farcast.protocol.errors import RemoteError, UnreachableError

SOON_S, NEVER_S = 0.01, 30.0


async def whole(body: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in body])


class Source:
    """Brings a body once it is let, or fails then."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.cancelled = False
        self.error = error

    async def opening(self) -> AsyncIterator[bytes]:
        """Open."""
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return self._body()

    async def _body(self) -> AsyncIterator[bytes]:
        for chunk in (b"one", b"two"):
            yield chunk


async def test_what_is_here_in_time_is_the_body_itself_and_what_fails_in_time_still_has_an_answer() -> None:
    start, source, broken = HeadStart(NEVER_S), Source(), Source(UnreachableError("gone", reason="gone"))
    source.let.set()
    broken.let.set()
    assert await whole(await start.body(source.opening())) == b"onetwo"
    with pytest.raises(UnreachableError):
        await start.body(broken.opening())


async def test_what_comes_later_is_the_same_body_and_what_fails_later_fails_in_it() -> None:
    start = HeadStart(SOON_S)
    for source in (Source(), Source(UnreachableError("gone", reason="gone"))):
        body = await start.body(source.opening())
        reading = asyncio.ensure_future(whole(body))
        await asyncio.sleep(0)
        assert not reading.done()
        source.let.set()
        if source.error is None:
            assert await reading == b"onetwo"
        else:
            with pytest.raises(UnreachableError):
                await reading


async def test_a_lead_goes_out_at_once_and_what_does_not_begin_with_it_is_cut_short() -> None:
    for lead, holds in ((b"o", True), (b"\0", False)):
        source = Source()
        body = await HeadStart(SOON_S).body(source.opening(), lead)
        assert await anext(body) == lead
        source.let.set()
        if holds:
            assert await whole(body) == b"netwo"
        else:
            with pytest.raises(RemoteError):
                await anext(body)


async def test_a_player_that_leaves_ends_the_opening_before_and_after_the_head() -> None:
    early, late = Source(), Source()
    asking = asyncio.ensure_future(HeadStart(NEVER_S).body(early.opening()))
    await asyncio.sleep(SOON_S)
    asking.cancel()
    reading = asyncio.ensure_future(whole(await HeadStart(SOON_S).body(late.opening())))
    await asyncio.sleep(SOON_S)
    reading.cancel()
    for task in (asking, reading):
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    assert early.cancelled
    assert late.cancelled


async def test_a_body_nobody_began_to_read_is_given_up_at_the_end_and_its_failure_heard() -> None:
    start = HeadStart(SOON_S)
    kept, failed = Source(), Source(UnreachableError("gone", reason="gone"))
    bodies = [await start.body(source.opening()) for source in (kept, failed)]
    failed.let.set()
    await asyncio.sleep(SOON_S)
    await start.close()
    assert kept.cancelled
    assert len(bodies) == 2
