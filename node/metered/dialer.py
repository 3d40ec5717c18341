"""The metered dialler: every byte to and from the Internet is taken from the ration before it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...protocol.cid import Cid
from ...protocol.ports import Reply, Source
from ..http.bulk import Call
from ..http.dial import HttpDialer
from .ration import BLOCK_COST_BYTES, Ration

REQUEST_BYTES = 1_200
"""Of head, handshake and acknowledgements, both ways."""
LEAST_ANSWER_BYTES = 4 << 10
"""Where there is no room for the answer to a small request, nothing is asked."""
BLOCK_WAIT_S = 5.0
"""For blocks under way, near the end of a day's budget."""
WIRE_SHARE = 16
"""One byte in so many goes into the headers of TCP, UDP and IP."""


class MeteredDialer(HttpDialer):
    """A dialler with a ration: blocks take from it, and everything else may take its last part too."""

    def __init__(self, ration: Ration, **settings: Any) -> None:  # noqa: ANN401 - as HttpDialer
        super().__init__(**settings)
        self.bulk.races = False  # a block that two carriers bring is paid for twice
        self.ration = ration

    async def _answer(self, source: Source, call: Call, timeout_s: float) -> Reply:
        """Make one request as ``HttpDialer``; raises what ``Ration.take`` does too."""
        sent, here = on_wire(len(call.body) + len(call.path)), 0

        def heard(more_bytes: int) -> None:
            nonlocal here
            here += more_bytes
            if call.arrived is not None:
                call.arrived(more_bytes)

        held = await self.ration.take(
            sent + on_wire(call.limit_bytes),
            first=True,
            least_bytes=sent + on_wire(min(call.limit_bytes, LEAST_ANSWER_BYTES)),
            wait_s=timeout_s,
        )
        room_bytes = (held - sent - REQUEST_BYTES) * WIRE_SHARE // (WIRE_SHARE + 1)
        paid = call._replace(limit_bytes=min(call.limit_bytes, room_bytes + 1), arrived=heard)
        try:
            return await super()._answer(source, paid, timeout_s)
        finally:
            await self.ration.settle(held, sent + on_wire(here) - REQUEST_BYTES, first=True)

    async def _bring(
        self,
        source: Source,
        cid: Cid,
        headers: dict[str, str],
        timeout_s: float,
        arrived: Callable[[int], None] | None,
        moved: Callable[[int], None] | None = None,
    ) -> bytes:
        """Fetch a block as ``HttpDialer``; raises what ``Ration.take`` does too."""
        here = 0

        def heard(more_bytes: int) -> None:
            nonlocal here
            here += more_bytes
            if moved is not None:
                moved(more_bytes)

        await self.ration.take(BLOCK_COST_BYTES, first=False, wait_s=min(timeout_s, BLOCK_WAIT_S))
        try:
            return await super()._bring(source, cid, headers, timeout_s, arrived, heard)
        finally:
            await self.ration.settle(BLOCK_COST_BYTES, on_wire(here), first=False)


def on_wire(size_bytes: int) -> int:
    """Return what so many bytes of a request or an answer cost on the wire, about."""
    return size_bytes + size_bytes // WIRE_SHARE + REQUEST_BYTES
