"""The metered dialler: every byte to and from the Internet is taken from the ration before it moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...protocol.cid import Cid
from ...protocol.ports import Reply, Source
from ..http.dial import HttpDialer
from .ration import BLOCK_COST_BYTES, Ration

REQUEST_BYTES = 1_200
"""Of head, handshake and acknowledgements, both ways."""
LEAST_ANSWER_BYTES = 4 << 10
"""Where there is no room for the answer to a small request, nothing is asked."""
WIRE_SHARE = 16
"""One byte in so many goes into the headers of TCP, UDP and IP."""


class MeteredDialer(HttpDialer):
    """A dialler with a ration: blocks take from it, and everything else may take its last part too."""

    def __init__(self, ration: Ration, **settings: Any) -> None:  # noqa: ANN401 - as HttpDialer
        super().__init__(**settings)
        self.ration = ration

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one request as ``HttpDialer.request``; raises what ``Ration.take`` does too."""
        sent = on_wire(len(body) + len(path))
        room_bytes = (self.ration.room_bytes - sent - REQUEST_BYTES) * WIRE_SHARE // (WIRE_SHARE + 1)
        limit_bytes = min(limit_bytes, max(room_bytes, LEAST_ANSWER_BYTES))
        held = sent + on_wire(limit_bytes)
        await self.ration.take(held, first=True)
        spent = sent
        try:
            reply = await super().request(
                source,
                method,
                path,
                body=body,
                headers=headers,
                limit_bytes=limit_bytes,
                timeout_s=timeout_s,
            )
            spent += on_wire(len(reply.body)) - REQUEST_BYTES
            return reply
        finally:
            self.ration.settle(held, spent, first=True)

    async def get_block(
        self,
        source: Source,
        cid: Cid,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        arrived: Callable[[int], None] | None = None,
    ) -> bytes:
        """Fetch a block as ``HttpDialer.get_block``; raises what ``Ration.take`` does too."""
        here = 0

        def heard(total_bytes: int) -> None:
            nonlocal here
            here = max(here, total_bytes)
            if arrived is not None:
                arrived(total_bytes)

        await self.ration.take(BLOCK_COST_BYTES, first=False)
        try:
            data = await super().get_block(source, cid, headers=headers, timeout_s=timeout_s, arrived=heard)
            here = max(here, len(data))
            return data
        finally:
            self.ration.settle(BLOCK_COST_BYTES, on_wire(here), first=False)


def on_wire(size_bytes: int) -> int:
    """Return what so many bytes of a request or an answer cost on the wire, about."""
    return size_bytes + size_bytes // WIRE_SHARE + REQUEST_BYTES
