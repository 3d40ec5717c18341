"""A body on its way: bytes as they come, and whoever stops listening leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from ...protocol.errors import UnreachableError

STALL_S = 20.0


class Download(AsyncIterator[bytes]):
    """Iterates over the body of one answer, and releases its stream once, however that ends.

    Left unread for ``STALL_S`` it gives up by itself, so a forgotten one is no leak.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], release: Callable[[], None]) -> None:
        """Take chunks from ``read``, an empty one being the end; then, or earlier, call ``release``."""
        self._read = read
        self._release = release
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.call_later(STALL_S, self.close)

    async def __anext__(self) -> bytes:
        """Return the next chunk.

        Raises:
            UnreachableError: the peer reset the stream, ended it short, or is silent.

        """
        if not self._open:
            raise StopAsyncIteration
        self._watch.cancel()
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await self._read()
        except TimeoutError as error:
            self.close()
            raise UnreachableError(f"nothing came for {STALL_S:.0f} s", reason="timeout") from error
        except BaseException:
            self.close()
            raise
        if not chunk:
            self.close()
            raise StopAsyncIteration
        self._watch = self._loop.call_later(STALL_S, self.close)
        return chunk

    async def aclose(self) -> None:
        """Stop; what is on its way is refused."""
        self.close()

    def close(self) -> None:
        """Stop, as ``aclose``."""
        self._watch.cancel()
        if self._open:
            self._open = False
            self._release()
