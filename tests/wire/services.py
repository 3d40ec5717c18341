"""Services run beside a test, and waiting for what they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def running(*services: Coroutine[object, object, None]) -> AsyncGenerator[None]:
    """Run services; each must still run at the end, and ends there."""
    tasks = [asyncio.ensure_future(service) for service in services]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait until something holds; returns how long that took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.005)
    return time.monotonic() - started
