"""The admin API of imports: a command that finds the relay running has it import the file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from ..node.admin import call_admin
from ..node.blocks.store import DiskStore
from ..node.home import Home
from ..node.http.exchange import Answer, Exchange, Router
from ..node.report import Report
from ..node.settings import Settings
from ..protocol.errors import FarcastError, RefusedError, UsageError
from .imports import Imported, Imports

REQUEST_LIMIT_BYTES = 16 << 10
POLL_S = 0.2


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/import``: a file of this machine, and the label of what is in it."""

    path: str
    label: str


class ImportDesk:
    """Does one import at a time in a thread; its progress and its end are asked for."""

    def __init__(self, store: DiskStore) -> None:
        self.imports = Imports(store)
        self._task: asyncio.Future[None] | None = None
        self._state: dict[str, object] = {}

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("POST", "/api/import", self.start)
        router.route("GET", "/api/import", self.state)

    async def start(self, exchange: Exchange) -> Answer:
        """``POST /api/import``: begin; 202, or 429 while another is under way."""
        body = await exchange.read(REQUEST_LIMIT_BYTES)
        try:
            order = msgspec.json.decode(body, type=Order)
        except msgspec.MsgspecError as error:
            raise RefusedError("an import is {path, label}", status=400, reason="bad_arguments") from error
        if self._task is not None and not self._task.done():
            message = "this relay is importing already; try again when that is done"
            raise RefusedError(message, status=429, retry_after_s=30, reason="busy")
        self._state = {"state": "running", "done": 0, "total": 0}
        self._task = asyncio.ensure_future(self._work(Path(order.path), order.label))
        return Answer.json(self._state, 202)

    async def state(self, exchange: Exchange) -> Answer:
        """``GET /api/import``: how far it is, or how it ended."""
        del exchange
        return Answer.json(self._state or {"state": "none"})

    async def close(self) -> None:
        """Stop what is under way and wait for its end; it can be repeated."""
        self.imports.stop()
        if self._task is not None:
            await self._task

    async def _work(self, path: Path, label: str) -> None:
        def report(stage: str, done: float, total: float = 1.0) -> None:
            del stage
            self._state = {"state": "running", "done": done, "total": total}

        try:
            done = await asyncio.to_thread(self.imports.add, path, label, report)
        except FarcastError as error:
            usage = isinstance(error, UsageError)
            self._state = {"state": "failed", "detail": str(error), "reason": error.reason, "usage": usage}
        else:
            self._state = {"state": "done", "import": done.facts()}


def import_car(home: Path, path: Path, label: str, report: Report) -> dict[str, Any]:
    """Import a CAR into the relay that lives in ``home``, running or not; returns what was done.

    Raises:
        UsageError, RemoteError, StoreFullError: as ``Imports.add``.

    """
    try:
        return _import_here(home, path, label, report).facts()
    except UsageError as error:
        if error.reason != "home_in_use":
            raise
    call_admin(home, "POST", "/api/import", {"path": str(path.absolute()), "label": label}, role="relay")
    while True:
        state = call_admin(home, "GET", "/api/import", role="relay")
        if state["state"] == "done":
            found: dict[str, Any] = state["import"]
            return found
        if state["state"] != "running":
            kind = UsageError if state.get("usage") else FarcastError
            raise kind(str(state.get("detail", "the relay knows of no import")), reason="import")
        report("importing", state["done"], state["total"])
        time.sleep(POLL_S)


def _import_here(home: Path, path: Path, label: str, report: Report) -> Imported:
    import os

    from prometheus_client import CollectorRegistry

    settings = Settings.load(home, os.environ)
    with Home.open(home, "relay") as opened:
        store = DiskStore(opened.path, settings.store.quota_bytes, CollectorRegistry())
        try:
            return Imports(store).add(path, label, report)
        finally:
            store.close()
