"""SIGHUP: the settings are read again, and what can change while serving does, without a connection lost."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Counter

from ..node.settings import Settings
from ..protocol.errors import UsageError

LIVE = ("contract.", "store.quota_bytes", "network.announce", "log.level")
"""Keys, or beginnings of keys, that hold at once; every other one holds from the next start on."""

log = logging.getLogger(__name__)


class Reload:
    """Reads a home's settings again when told to; ``apply`` takes those that hold from now on."""

    def __init__(
        self, home: Path, settings: Settings, apply: Callable[[Settings], None], registry: CollectorRegistry
    ) -> None:
        self._home = home
        self._started_with = settings
        self._settings = settings
        self._apply = apply
        self._asked = asyncio.Event()
        self._reloads = Counter(
            "farcast_relay_settings_reloads",
            "Times the settings were read again.",
            ["result"],
            registry=registry,
        )

    async def run(self) -> None:
        """Wait for SIGHUP, again and again."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def reload(self) -> bool:
        """Read the settings now; False where they are bad, and the old ones stay."""
        try:
            new = await asyncio.to_thread(Settings.load, self._home, os.environ)
        except UsageError as error:
            self._reloads.labels("refused").inc()
            log.error("settings not taken, the old ones stay: %s", error)  # noqa: TRY400 - a sentence, no trace
            return False
        self._reloads.labels("taken").inc()
        now = differing(self._settings, new, live=True)
        later = differing(self._started_with, new, live=False)
        self._settings = taken(self._settings, new)
        self._apply(self._settings)
        log.info(
            "settings read again; %s%s",
            f"from now on {', '.join(now)}" if now else "nothing to change while running",
            f"; from the next start on {', '.join(later)}" if later else "",
        )
        return True


def differing(old: Settings, new: Settings, *, live: bool) -> list[str]:
    """Return the ``key = value`` that differ, of those that are ``live`` or of the others."""
    before = {name: value for name, value, _ in old.rows()}
    return [
        f"{name} = {value}"
        for name, value, _ in new.rows()
        if before[name] != value and name.startswith(LIVE) == live
    ]


def taken(old: Settings, new: Settings) -> Settings:
    """Return ``old`` with what of ``new`` can change while a relay serves."""
    return replace(
        old,
        contract=new.contract,
        store=msgspec.structs.replace(old.store, quota_bytes=new.store.quota_bytes),
        network=msgspec.structs.replace(old.network, announce=new.network.announce),
        log=new.log,
        origins=new.origins,
    )
