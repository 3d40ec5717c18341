"""The admin API of sticks: a command that finds the node running has it do the work.

After an import whose pulses can go home at once, the acks are waited for a little, so that they go back
with the stick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...protocol.errors import FarcastError, RefusedError, UsageError
from ..admin import call_admin
from ..http.exchange import Answer, Exchange, Router
from ..report import Report, quiet
from .ferry import Ferry, ferry_at

REQUEST_LIMIT_BYTES = 256 << 10
POLL_S = 0.2
LOOK_S, ACKS_LOOKS = 0.5, 40
"""How often it is looked whether the acks of a stick's pulses have come: for twenty seconds."""
TITLES_LIMIT = 4_096

Action = Literal["export", "import"]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/stick``: what to do with which folder of this machine, and for which titles."""

    action: Action
    folder: str
    titles: list[str]


class FerryDesk:
    """Does one thing at a time in a thread; its progress and its end are asked for.

    ``hurry`` has waiting pulses sent now; ``reachable`` says whether they can be.
    """

    def __init__(self, ferry: Ferry, hurry: Callable[[], object], reachable: Callable[[], bool]) -> None:
        self._ferry = ferry
        self._hurry = hurry
        self._reachable = reachable
        self._task: asyncio.Future[None] | None = None
        self._closed = False
        self._state: dict[str, Any] = {}

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("POST", "/api/stick", self.start)
        router.route("GET", "/api/stick", self.state)

    async def start(self, exchange: Exchange) -> Answer:
        """``POST /api/stick``: begin; 202, or 429 while another is under way."""
        try:
            order = msgspec.json.decode(await exchange.read(REQUEST_LIMIT_BYTES), type=Order)
        except msgspec.MsgspecError as error:
            message = "a stick's order is {action, folder, titles}"
            raise RefusedError(message, status=400, reason="bad_arguments") from error
        if self._task is not None and not self._task.done():
            message = "this node is busy with a stick already; try again when that is done"
            raise RefusedError(message, status=429, retry_after_s=30, reason="busy")
        self._state = {"state": "running", "stage": "begin", "done": 0, "total": 1}
        self._task = asyncio.ensure_future(self._work(order))
        return Answer.json(self._state, 202)

    async def state(self, exchange: Exchange) -> Answer:
        """``GET /api/stick``: how far it is, or how it ended."""
        del exchange
        return Answer.json(self._state or {"state": "none"})

    async def close(self) -> None:
        """Stop what is under way and wait for its end."""
        self._closed = True
        self._ferry.stop()
        if self._task is not None:
            await self._task

    async def _work(self, order: Order) -> None:
        def report(stage: str, done: float, total: float = 1.0) -> None:
            self._state = {"state": "running", "stage": stage, "done": done, "total": total}

        try:
            self._state = {"state": "done", "result": await self._do(order, report)}
        except FarcastError as error:
            kind = "usage" if isinstance(error, UsageError) else "error"
            self._state = {"state": "failed", "detail": str(error), "reason": error.reason, "kind": kind}

    async def _do(self, order: Order, report: Report) -> dict[str, Any]:
        place, titles = Path(order.folder), order.titles[:TITLES_LIMIT]
        if order.action == "export":
            return (await asyncio.to_thread(self._ferry.export, place, titles, report)).facts()
        done = await asyncio.to_thread(self._ferry.bring, place, titles, report)
        if done.pulses and self._reachable():
            report("waiting for the acks of its pulses", 0)
            returned = await self._acks(place)
            done = done._replace(returned=done.returned + returned)
        return done.facts()

    async def _acks(self, place: Path) -> int:
        """Have the pulses sent, and wait for their acks; returns of how many they go back with the stick."""
        self._hurry()
        for _ in range(ACKS_LOOKS):
            if self._closed or not await asyncio.to_thread(self._ferry.waiting, place):
                break
            await asyncio.sleep(LOOK_S)
        return await asyncio.to_thread(self._ferry.settle, place)


def carry(
    home: Path, action: Action, place: Path, titles: Sequence[str], report: Report = quiet
) -> dict[str, Any]:
    """Export or import by the node that lives in ``home``, running or not; returns what was done.

    Raises:
        UsageError, LocalError, RemoteError: as ``Ferry.export`` and ``Ferry.bring``.

    """
    try:
        with ferry_at(home) as ferry:
            if action == "export":
                return ferry.export(place, titles, report).facts()
            return ferry.bring(place, titles, report).facts()
    except UsageError as error:
        if error.reason != "home_in_use":
            raise
    order = {"action": action, "folder": str(place.absolute()), "titles": [*titles]}
    call_admin(home, "POST", "/api/stick", order)
    while True:
        state = call_admin(home, "GET", "/api/stick")
        if state["state"] == "done":
            found: dict[str, Any] = state["result"]
            return found
        if state["state"] != "running":
            detail, reason = str(state.get("detail", "the node knows of no stick")), "stick"
            raise (UsageError if state.get("kind") == "usage" else FarcastError)(detail, reason=reason)
        report(state["stage"], state["done"], state["total"])
        time.sleep(POLL_S)
