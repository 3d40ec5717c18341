"""What an operator's ``leave`` does: out of the origin's directory, and, if told so, off the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ..node.admin import admin_url, call_admin
from ..node.box import clock_ms
from ..node.catalog.join import known_origin, trust_fetch
from ..node.catalog.trust import Trust
from ..node.home import Home, write_whole
from ..node.http.dial import HttpDialer
from ..node.pulses.spool import DiskSpool
from ..node.settings import Settings
from ..protocol.errors import UnreachableError, UsageError
from .enrol import LEFT_FILE, Enrolment, read_payee
from .joining import outside_of

SPOOL_FILE = "spool.db"


class Left(NamedTuple):
    """What was left: the origin's name, pulses still waiting here, and whether the home is gone."""

    name: str
    pulses: int
    purged: bool


async def leave(path: Path, *, purge: bool) -> Left:
    """Tell the origin, and remember it; a running relay goes on until it is stopped, out of the directory.

    Raises:
        UsageError: no relay there; ``purge`` of a running one, or of pulses that are promised.
        UnreachableError: where the origin cannot be told; its directory forgets the relay in a day.

    """
    if admin_url(path) is not None:
        if purge:
            raise UsageError("stop the relay first, then `farcast relay leave --purge` removes its home")
        found = await asyncio.to_thread(call_admin, path, "POST", "/api/leave", None, role="relay")
        return Left(str(found["name"]), int(found["pulses_waiting"]), purged=False)
    settings = Settings.load(path, os.environ)
    with Home.open(path, "relay") as home:
        async with HttpDialer(allow_private=settings.network.allow_private) as dialer:
            trust = Trust(path / "trust", trust_fetch(dialer, lambda: known_origin(trust)))
            if trust.hint is None:
                raise UsageError("this relay has joined no origin")
            if not (path / LEFT_FILE).exists():
                await _tell(home, settings, dialer, trust)
            name = trust.hint.name
        pulses = _waiting(path)
        if purge and pulses:
            message = (
                f"{pulses} pulses promised to viewers wait for the origin; run the relay until they went"
            )
            raise UsageError(message)
        if purge:
            shutil.rmtree(path)
    return Left(name, pulses, purged=purge)


def _waiting(path: Path) -> int:
    if not (path / SPOOL_FILE).exists():
        return 0
    with closing(DiskSpool(path / SPOOL_FILE, CollectorRegistry())) as spool:
        return spool.waiting().count


async def _tell(home: Home, settings: Settings, dialer: HttpDialer, trust: Trust) -> None:
    enrolment = Enrolment(
        home.identity, dialer, lambda: known_origin(trust), outside_of(settings).endpoints,
        read_payee(home.path), clock_ms,
    )  # fmt: skip
    try:
        await enrolment.renew(wish="left")
    except UnreachableError as error:
        message = (
            f"the origin cannot be told ({error}); try again, or stop the relay: it is forgotten in a day"
        )
        raise UnreachableError(message) from error
    write_whole(home.path / LEFT_FILE, b"")
