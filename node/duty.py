"""A duty: what a command that keeps running starts, tells about, and ends; the same for every role."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from .console import Console
from .home import Home, Role
from .settings import Settings


class Greeting(NamedTuple):
    """What a box says once it listens: ``data`` with ``--json``, else the lines."""

    data: dict[str, object]
    lines: list[str]


class Duty(Protocol):
    """A role wired onto a box; made on the event loop."""

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Work until told to stop; ``started`` is called once the box listens."""
        ...

    def greeting(self) -> Greeting:
        """Say where everything is; only once the box listens."""
        ...


def do_duty(path: Path, role: Role, make: Callable[[Home, Settings], Duty], console: Console) -> None:
    """Run the box in ``path`` until SIGINT or SIGTERM.

    Raises:
        UsageError: a wrong setting, no home, a home in use, a taken port.

    """
    settings = Settings.load(path, os.environ)
    logging.basicConfig(level=settings.log.level.upper(), format="%(levelname)s %(name)s: %(message)s")
    home = Home.open(path, role)

    async def work() -> None:
        duty = make(home, settings)

        def greet() -> None:
            greeting = duty.greeting()
            console.result(greeting.data, *greeting.lines, "Ctrl-C ends it.")

        await duty.run(greet)

    asyncio.run(work())
