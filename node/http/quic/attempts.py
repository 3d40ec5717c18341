"""Attempts: one QUIC connection by whichever of a name's addresses answers first (RFC 8305)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ....protocol.errors import RemoteError, UnreachableError
from ..dualstack import ATTEMPT_S
from .channel import Channel
from .session import Address

Found = tuple[int, Address]


async def first_channel(addresses: Sequence[Found], key: bytes) -> tuple[Channel, Found]:
    """Return a channel to the owner of ``key`` and the address it is at.

    Each address has 250 ms before the next is tried as well; the others are left once one answers.

    Raises:
        UnreachableError, RemoteError: as ``Channel.open``; what the last attempt failed of.

    """
    loop = asyncio.get_running_loop()
    waiting = list(addresses)
    tasks: dict[asyncio.Task[Channel], Found] = {}
    failure: RemoteError = UnreachableError("there is no address to try", reason="no_address")
    try:
        while waiting or tasks:
            if waiting:
                family, address = waiting.pop(0)
                tasks[loop.create_task(Channel.open(family, address, key))] = (family, address)
            done, _ = await asyncio.wait(
                tasks, timeout=ATTEMPT_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                found = tasks.pop(task)
                try:
                    return task.result(), found
                except RemoteError as error:
                    failure = error
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        for channel in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(channel, Channel):
                channel.close()
