"""How a command of the origin gets its work done: here where the home is free, else by who runs there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..node.console import Console
from ..node.home import Home, default_home
from ..node.settings import Settings
from ..protocol.errors import UsageError


def perform(
    home: Path | None, action: str, arguments: Mapping[str, object], console: Console, *, label: str = ""
) -> dict[str, Any]:
    """Do an action here if the home is free, else in the origin that runs there."""
    from .admin import call_running
    from .office import Office

    path = origin_home(home)
    with console.progress(label or action) as report_progress:
        try:
            held = Home.open(path, "origin")
        except UsageError as error:
            if error.reason != "home_in_use":
                raise
            return {**call_running(path, action, arguments, report_progress), "running": True}
        with held:
            office = Office(path, Settings.load(path, os.environ), _clock_ms)
            try:
                return {**office.perform(action, arguments, report_progress), "running": False}
            finally:
                office.close()


def origin_home(home: Path | None) -> Path:
    """Return the home a command is about."""
    return home or default_home("origin", os.environ)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
