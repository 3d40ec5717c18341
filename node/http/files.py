"""Open files: cached descriptors for the byte path, and file parts read without holding up the loop."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError
from .ranges import FilePart

if TYPE_CHECKING:
    from .exchange import Answer
    from .hotset import HotSet

DESCRIPTOR_LIMIT = 512
CHUNK_BYTES = 256 << 10
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class Descriptor:
    """One open file of known size, closed when nobody uses it and the cache has let go."""

    __slots__ = ("cached", "fd", "size", "users")

    def __init__(self, path: str) -> None:
        """Open ``path`` for reading; raises ``OSError``."""
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.size = os.fstat(self.fd).st_size
        self.users = 0
        self.cached = True

    def settle(self) -> None:
        """Close the file once it is neither used nor cached."""
        if self.fd >= 0 and not self.users and not self.cached:
            os.close(self.fd)
            self.fd = -1


class FileCache:
    """The files used last, kept open: one look-up instead of open, fstat and close a request.

    For immutable files only: what was opened is served even if the path has since gone, until
    ``prune`` notices.
    """

    def __init__(self, limit: int = DESCRIPTOR_LIMIT, *, hot: HotSet | None = None) -> None:
        """Keep at most ``limit`` descriptors; ``hot`` are blocks in memory, asked before any file."""
        self.hot = hot
        self._limit = limit
        self._open: OrderedDict[str, Descriptor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, part: FilePart) -> Descriptor:
        """Return the open file of ``part``; give it back with ``release``.

        Raises:
            OSError: it cannot be opened.
            LocalError: ``truncated`` where the file is shorter than the part.

        """
        found = self._open.get(part.path)
        if found is None:
            found = self._open[part.path] = Descriptor(part.path)
            if len(self._open) > self._limit:
                self._drop(next(iter(self._open)))
            # a cold file starts loading before its first byte is asked for
            os.posix_fadvise(found.fd, part.offset, part.length, os.POSIX_FADV_WILLNEED)
        else:
            self._open.move_to_end(part.path)
        if part.offset + part.length > found.size:
            self._drop(part.path)
            message = f"{part.path} is shorter than what should be in it; it will be fetched again"
            raise LocalError(message, reason="truncated")
        found.users += 1
        return found

    def release(self, descriptor: Descriptor) -> None:
        """Give a taken descriptor back."""
        descriptor.users -= 1
        descriptor.settle()

    def prune(self) -> None:
        """Let go of files deleted since, so that their disk space is freed."""
        for path in [path for path, kept in self._open.items() if not os.fstat(kept.fd).st_nlink]:
            self._drop(path)

    def close(self) -> None:
        """Let go of everything."""
        for path in list(self._open):
            self._drop(path)

    async def chunks(self, parts: Sequence[FilePart], size: int = CHUNK_BYTES) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of ``parts`` in order, in chunks of at most ``size``.

        Raises:
            LocalError: ``unreadable`` or ``truncated``; a carrier must then end abnormally.

        """
        for part in parts:
            data = None if self.hot is None else self.hot.find(part.path)
            if data is not None and part.offset + part.length <= len(data):
                for at in range(part.offset, part.offset + part.length, size):
                    yield data[at : min(at + size, part.offset + part.length)]
                continue
            try:
                descriptor = self.take(part)
            except OSError as error:
                raise LocalError(f"{part.path} cannot be read: {error}", reason="unreadable") from error
            try:
                offset, end = part.offset, part.offset + part.length
                while offset < end:
                    chunk = await _read(descriptor.fd, min(size, end - offset), offset)
                    if not chunk:
                        self.close()  # the file was cut while it was open: look again
                        raise LocalError(f"{part.path} was cut short while it was read", reason="truncated")
                    yield chunk
                    offset += len(chunk)
            finally:
                self.release(descriptor)

    async def stream(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """Yield the body of ``answer`` in chunks of at most ``CHUNK_BYTES``, whatever kind it is.

        Raises:
            LocalError: as ``chunks``; ``wrong_length`` where an iterator does not give exactly
                the ``content-length`` its answer declares. Also whatever the iterator raises.

        """
        body, left = answer.body, answer.length
        if isinstance(body, bytes):
            source: AsyncIterator[bytes] = _bytes(body)
        else:
            source = body if isinstance(body, AsyncIterator) else self.chunks(body)
        try:
            async for chunk in source:
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        break
                for at in range(0, len(chunk), CHUNK_BYTES):
                    yield chunk[at : at + CHUNK_BYTES]
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        if left:
            raise LocalError("an answer is not as long as it says", reason="wrong_length")

    def _drop(self, path: str) -> None:
        descriptor = self._open.pop(path)
        descriptor.cached = False
        descriptor.settle()


async def _bytes(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _read(fd: int, size: int, offset: int) -> bytes:
    """Read at once what the page cache holds; only what is not there costs a thread."""
    if _NOWAIT:
        buffer = bytearray(size)
        try:
            count = os.preadv(fd, [buffer], offset, _NOWAIT)
        except OSError:  # not cached, or a file system without RWF_NOWAIT
            count = 0
        if count:
            return bytes(buffer) if count == size else bytes(buffer[:count])
    return await asyncio.to_thread(os.pread, fd, size, offset)
