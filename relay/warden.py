"""The warden: makes a box's servers and fills keep its operator's contract, and counts for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from ..node.box import Box, clock_ms
from ..node.http.exchange import Answer, Exchange, Handler
from ..node.http.governor import Lan, State
from ..node.settings import Settings
from .contract import TICK_S, Contract, Traffic
from .contractmetrics import ContractMetrics


class Warden:
    """Stands between one contract and one box; ``turned`` is called when serving begins or ends."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._fetched_bytes = self._asked_bytes = 0
        self.contract = Contract(
            box.home.path, box.settings.contract, clock_ms, random.SystemRandom().random, self._traffic
        )
        self.contract.changed = self._hold
        self.turned: Callable[[], None] = lambda: None
        self._state = self.contract.state
        self.metrics = ContractMetrics(self.contract, box.registry)
        box.dialer.carried = self._carried
        box.every("contract", TICK_S, self.contract.tick)
        box.on_close(self.contract.keep)
        self._hold()

    def ready(self, handler: Handler) -> Handler:
        """Return ``/readyz``: ``handler``'s answer, 503 while nothing new is served."""

        async def handle(exchange: Exchange) -> Answer:
            refusal = self.contract.refusal()
            if refusal is not None:
                raise refusal
            return await handler(exchange)

        return handle

    def change(self, settings: Settings) -> None:
        """Hold to settings that were read again while serving."""
        self._box.settings = settings
        self._box.store.quota_bytes = settings.store.quota_bytes
        logging.getLogger().setLevel(settings.log.level.upper())
        self.contract.change(settings.contract)

    def connections(self) -> int:
        """How many connections the public port has open."""
        return sum(self._box.tally(name).connections() for name in ("tcp", "quic"))

    def _traffic(self) -> Traffic:
        return Traffic(self._box.governor.wan.bytes + self._asked_bytes, self._fetched_bytes)

    def _carried(self, address: str, sent_bytes: int, received_bytes: int) -> None:
        """Count what asking another box took, where that is not on the LAN."""
        if self._box.governor.local(address.rpartition(":")[0].strip("[]")):
            return
        self._fetched_bytes += received_bytes
        self._asked_bytes += sent_bytes
        self.contract.filled(received_bytes)

    def _hold(self) -> None:
        """Tell the servers what holds now."""
        contract, governor = self.contract, self._box.governor
        governor.local = Lan() if contract.table.lan_exempt else Lan(())
        governor.set_rules(contract.rules(), asyncio.get_running_loop().time())
        governor.set_state(State(contract.state), contract.retry_after_s)
        if contract.state != self._state:
            self._state = contract.state
            self.turned()
