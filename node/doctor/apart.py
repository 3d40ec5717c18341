"""Blocking work apart: in threads that a command does not wait for when it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ...protocol.errors import UnreachableError

T = TypeVar("T")


async def apart(work: Callable[[], T]) -> T:
    """Await ``work`` in a thread of its own; one that never returns is left behind.

    ``asyncio.to_thread`` will not do: the end of the event loop waits for its threads.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def tell(value: T) -> None:
        if not result.done():
            result.set_result(value)

    def fail(error: Exception) -> None:
        if not result.done():
            result.set_exception(error)

    def run() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(tell, value)

    threading.Thread(target=run, daemon=True).start()
    return await result


async def resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """Return (family, socket address) of a name; raises ``UnreachableError``."""
    try:
        found = await apart(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise UnreachableError(f"{host} cannot be resolved: {error.strerror}", reason="no_address") from error
    return [(int(family), (str(address[0]), int(address[1]))) for family, _, _, _, address in found]
