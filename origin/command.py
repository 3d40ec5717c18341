"""How a command of the origin gets its work done: here where the home is free, else by who runs there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ..node.admin import admin_url
from ..node.console import Console
from ..node.home import Home, default_home
from ..node.report import Report
from ..node.settings import Settings
from ..protocol.errors import LocalError, RefusedError, UsageError
from .action import Result

LINE_LIMIT_BYTES = 16 << 20
SILENCE_S = 600.0
"""The longest a command waits between two lines; encoding reports every second or so."""


def perform(
    home: Path | None, action: str, arguments: Mapping[str, object], console: Console, *, label: str = ""
) -> dict[str, Any]:
    """Do an action here if the home is free, else in the origin that runs there."""
    path = origin_home(home)
    with console.progress(label or action) as report_progress:
        try:
            held = Home.open(path, "origin")
        except UsageError as error:
            if error.reason != "home_in_use":
                raise
            return {**call_running(path, action, arguments, report_progress), "running": True}
        from .office import Office  # over a second of imports, of no use to a command that only asks

        with held:
            office = Office(path, Settings.load(path, os.environ), _clock_ms)
            try:
                return {**office.perform(action, arguments, report_progress), "running": False}
            finally:
                office.close()


def call_running(home: Path, action: str, arguments: Mapping[str, object], report: Report) -> Result:
    """Let the origin that runs in ``home`` do one action. Blocking.

    Raises:
        UsageError: ``not_running``, or what the action raised for wrong use.
        LocalError: what else the action raised.

    """
    base = admin_url(home)
    if base is None:
        message = f"the home {home} is in use by another command; try again when it is done"
        raise UsageError(message, reason="home_in_use")
    request = Request(  # noqa: S310 - our own loopback address
        f"{base}/api/origin/{action}",
        data=json.dumps(arguments).encode(),
        method="POST",
        headers={"content-type": "application/json"},
    )
    try:
        with urlopen(request, timeout=SILENCE_S) as response:  # noqa: S310 - likewise
            while line := response.readline(LINE_LIMIT_BYTES):
                if line.strip():
                    result = _read_line(json.loads(line), report)
                    if result is not None:
                        return result
    except HTTPError as error:
        raise RefusedError(_detail(error), status=error.code) from None
    except (URLError, TimeoutError, ConnectionError, ValueError) as error:
        message = (
            f"the origin that runs in {home} does not answer; `farcast origin status` tells whether it lives"
        )
        raise LocalError(message, reason="not_running") from error
    message = f"the origin that runs in {home} stopped before the work was done; start it and try again"
    raise LocalError(message, reason="interrupted")


def _read_line(line: dict[str, Any], report: Report) -> Result | None:
    if "progress" in line:
        stage, done, total = line["progress"]
        report(stage, done, total)
        return None
    if "problem" in line:
        problem = line["problem"]
        kind = UsageError if problem["usage"] else LocalError
        raise kind(problem["detail"], reason=problem["reason"])
    result: Result = line["result"]
    return result


def _detail(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read(LINE_LIMIT_BYTES))["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the running origin answered {error.code}"


def origin_home(home: Path | None) -> Path:
    """Return the home a command is about."""
    return home or default_home("origin", os.environ)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
