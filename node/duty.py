"""A duty: what a command that keeps running starts, tells about, and ends; the same for every role."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from ..protocol.errors import FarcastError, UsageError
from .blocks.index import TABLES as BLOCK_TABLES
from .database import open_database
from .home import Home, Role
from .http.turnloop import run
from .pulses.spool import TABLES as SPOOL_TABLES
from .settings import Settings

_COMMAND = "farcast"
_DEBUG = "FARCAST_DEBUG"


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


class Console(Protocol):
    """Where a duty says that it has begun."""

    as_json: bool

    def result(self, data: Mapping[str, Any], *lines: str) -> None:
        """Print ``data`` as JSON, or the lines."""
        ...


class Plain:
    """A console without what commands need beside: this process lives for months."""

    def __init__(self, *, as_json: bool) -> None:
        """Print JSON or lines."""
        self.as_json = as_json

    def result(self, data: Mapping[str, Any], *lines: str) -> None:
        """Print ``data`` as JSON, or the lines."""
        text = json.dumps(data, indent=2, default=str) if self.as_json else "\n".join(lines)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def do_duty(path: Path, role: Role, make: Callable[[Home, Settings], Duty], console: Console) -> None:
    """Run the box in ``path`` until SIGINT or SIGTERM.

    A command line becomes a process that has imported the duty alone: reading options costs 20 MB that
    a box would keep for as long as it runs. Databases are brought up to date before, for the same reason.

    Raises:
        UsageError: a wrong setting, no home, a home in use, a taken port.

    """
    if _is_command_line():
        if "--debug" in sys.argv:
            os.environ[_DEBUG] = "1"
        Settings.load(path, os.environ)  # a mistake there is told first
        with Home.open(path, role):
            open_database(path / "index.db", BLOCK_TABLES, synchronous="NORMAL").close()
            open_database(path / "spool.db", SPOOL_TABLES, synchronous="FULL").close()
            if role == "node":
                from .pulses.wallet import TABLES as WALLET_TABLES

                open_database(path / "wallet.db", WALLET_TABLES, synchronous="FULL").close()
        sys.stdout.flush()
        sys.stderr.flush()
        form = "json" if console.as_json else "text"
        duty = f"{make.__module__}:{make.__qualname__}"
        command = [sys.executable, "-P", "-m", __name__, duty, role, str(path), form]
        os.execv(command[0], command)  # noqa: S606 - the same Python, no shell wanted
    settings = Settings.load(path, os.environ)
    logging.basicConfig(level=settings.log.level.upper(), format="%(levelname)s %(name)s: %(message)s")
    home = Home.open(path, role)

    async def work() -> None:
        duty = make(home, settings)

        def greet() -> None:
            greeting = duty.greeting()
            console.result(greeting.data, *greeting.lines, "Ctrl-C ends it.")

        await duty.run(greet)

    run(work())


def main(arguments: list[str]) -> int:
    """Do the duty that a command line has named; errors are told as every command tells them."""
    duty, role, path, form = arguments
    module, _, name = duty.partition(":")
    try:
        make = getattr(import_module(module), name)
        do_duty(Path(path), cast("Role", role), make, Plain(as_json=form == "json"))
    except FarcastError as error:
        return _failed(str(error), 2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        return _failed(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - a person gets a sentence even for a bug of ours
        return _failed(f"a bug in Farcast ({type(error).__name__}: {error}); --debug shows where", 1)
    return 0


def _failed(sentence: str, code: int) -> int:
    if os.environ.get(_DEBUG):
        traceback.print_exc()
    sys.stderr.write(f"farcast: {sentence}\n")
    return code


def _is_command_line() -> bool:
    """Say whether this process is the ``farcast`` command itself, and nothing that uses its parts."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return bool(spec.name == f"{_COMMAND}.__main__")
    return Path(sys.argv[0]).name == _COMMAND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
