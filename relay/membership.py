"""A relay's membership with its origin: what it publishes, what it wishes, and when it says so again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..node.box import Box, clock_ms
from ..node.home import write_whole
from ..protocol.directory import Endpoint
from ..protocol.enrol import Wish
from ..protocol.errors import FarcastError
from ..protocol.ports import Source
from .contract import Contract
from .enrol import LEFT_FILE, RENEW_S, Enrolment, read_payee
from .outside import LOOK_S, Outside

log = logging.getLogger(__name__)

RETRY_FIRST_S = 60.0


class Membership:
    """Keeps one relay's record fresh; ``box`` does its work."""

    def __init__(self, box: Box, contract: Contract, origin: Callable[[], list[Source]]) -> None:
        self._box = box
        self._contract = contract
        self._left = False
        self._heard_at = time.monotonic()
        self._retry_s, self._retry_at = RETRY_FIRST_S, float("inf")
        self.outside = Outside(
            lambda: box.settings, self._port, self.wake, box.registry, overlay=box.dialer.overlay
        )
        self.enrolment = Enrolment(
            box.identity, box.dialer, origin, self.outside.endpoints, read_payee(box.home.path), clock_ms,
            self.wish,
        )  # fmt: skip
        if self.outside.mapper is not None:
            box.serve("portmap", self.outside.mapper.run)
        box.every("outside", LOOK_S, self.look)
        box.every("enrol", RENEW_S, self.renew)

    @property
    def silent_s(self) -> float:
        """How long the origin has not answered."""
        return time.monotonic() - self._heard_at

    def heard(self) -> None:
        """Note that the origin has just answered."""
        self._heard_at = time.monotonic()

    def wish(self) -> Wish:
        """Return what this relay wants of the origin's directory now."""
        if self._left:
            return "left"
        if self._contract.state != "serving":
            return "paused"
        return "listed" if self._box.settings.contract.listed else "unlisted"

    def wake(self) -> None:
        """Post the record again at once."""
        self._box.wake("enrol")

    async def renew(self) -> None:
        """Post the record; soon again, backing off, while an address is not reached or nobody has judged."""
        await self.enrolment.renew()
        if self.enrolment.lost or self.enrolment.standing == "pending":
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(self._retry_s * 2, RENEW_S)
        else:
            self._retry_s, self._retry_at = RETRY_FIRST_S, float("inf")

    async def look(self) -> None:
        """Post the record again where the box's addresses are others by now, or a retry is due."""
        published: list[Endpoint] = self.enrolment.published
        moved = bool(published) and self.outside.endpoints() != published
        if moved or time.monotonic() >= self._retry_at:
            self.wake()

    async def tell(self) -> bool:
        """Post the record now; False where the origin cannot be told (it hears it later)."""
        try:
            await self.renew()
        except FarcastError as error:
            log.info("the origin could not be told: %s", error)
            return False
        return True

    async def leave(self) -> None:
        """Leave the origin's directory for good; what is promised is still delivered."""
        await self.enrolment.renew(wish="left")
        self._left = True
        await asyncio.to_thread(write_whole, self._box.home.path / LEFT_FILE, b"")
        await self._contract.pause()

    def _port(self) -> int:
        return self._box.listener.port if self._box.listener else self._box.settings.listen.port
