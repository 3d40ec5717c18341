"""The console: how every command speaks, to people in plain text or to scripts in JSON.

Results go to stdout; notes, warnings and progress of ``--json`` runs never do. Exit codes: 0 done,
1 the check or the remote failed, 2 wrong use or settings.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TextIO, TypeVar

import rich.console
import typer
from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..protocol.errors import FarcastError, UsageError
from .report import Report, quiet

P = ParamSpec("P")
R = TypeVar("R")


WIDEST = 1_000
"""Columns of a table at most."""
PLAIN_STEP = 0.25
"""Without a terminal a stage prints at most one line per this fraction."""

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="FARCAST_HOME", help="The folder this box lives in.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class Console:
    """Writes a command's result, notes and progress; ``as_json`` keeps stdout to one JSON value."""

    def __init__(
        self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._rich = rich.console.Console(file=self._out, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Print a line for people; silent with ``--json``."""
        if not self.as_json:
            print(text, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Print what explains a result to people, on stderr, so that a pipe carries the result alone."""
        if not self.as_json:
            print(text, file=self._err, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, whatever the output form."""
        print(f"warning: {text}", file=self._err, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows in columns; numbers stand to the right; silent with ``--json`` and without rows."""
        if self.as_json or not rows:
            return
        table = Table(box=box.SIMPLE_HEAD if self._rich.is_terminal else None, pad_edge=False)
        for index, column in enumerate(columns):
            numeric = all(isinstance(row[index], int | float) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        wide = rich.console.Console(file=self._out, highlight=False, markup=False, width=WIDEST)
        wide.print(table)  # an id cut off is no id; a narrow terminal wraps lines

    def result(self, data: Mapping[str, Any] | Sequence[Any], *lines: str) -> None:
        """End a command: ``data`` with ``--json``, else ``lines`` for people."""
        if self.as_json:
            print(json.dumps(data, indent=2, default=str), file=self._out, flush=True)
            return
        for line in lines:
            self.say(line)

    @contextmanager
    def progress(self, label: str) -> Generator[Report]:
        """Show how far long work is: a bar on a terminal, plain lines otherwise, nothing in JSON."""
        if self.as_json:
            yield quiet
        elif self._rich.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            with Progress(*columns, console=self._rich, transient=True) as bar:
                task = bar.add_task(label, total=None)

                def draw(stage: str, done: float, total: float = 1.0) -> None:
                    bar.update(task, description=f"{label}: {stage}", completed=done, total=total or None)

                yield draw
        else:
            yield self._plain_progress(label)

    def _plain_progress(self, label: str) -> Report:
        printed: dict[str, float] = {}

        def report(stage: str, done: float, total: float = 1.0) -> None:
            fraction = min(done / total, 1.0) if total else 0.0
            name = "".join(letter for letter in stage if not letter.isdigit())  # "7 of 90" is one stage
            last = printed.get(name)
            if last is None or fraction - last >= PLAIN_STEP or fraction >= 1.0 > last:
                printed[name] = fraction
                self.say(f"{label}: {stage} {int(fraction * 100)}%")

        return report


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: an error becomes one sentence on stderr and the exit code that fits it.

    A keyword argument ``debug``, or ``FARCAST_DEBUG`` in the environment, shows the traceback too.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FarcastError as error:
            _fail(str(error), 2 if isinstance(error, UsageError) else 1, debug=kwargs.get("debug"))
        except BrokenPipeError:
            sys.stderr.close()  # the reader left (a pager, head); there is nobody to tell
            raise typer.Exit(1) from None
        except OSError as error:
            what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            _fail(what, 1, debug=kwargs.get("debug"))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:  # noqa: BLE001 - a person gets a sentence even for a bug of ours
            what = f"a bug in Farcast ({type(error).__name__}: {error}); --debug shows where"
            _fail(what, 1, debug=kwargs.get("debug"))

    return run


def start(app: typer.Typer, arguments: Sequence[str], name: str) -> int:
    """Run a command line and return its exit code; wrong use is one sentence like any other error."""
    try:
        code = app(args=list(arguments), prog_name=name, standalone_mode=False)
    except typer.Abort:
        return 1
    except Exception as error:
        wrong_use = getattr(error, "format_message", None)  # typer exports no class for all of them
        if wrong_use is None:
            raise
        text = str(wrong_use()).strip()
        if "\n" in text:  # a group called without a command shows its help
            sys.stderr.write(text + "\n")
            return 2
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else name
        sys.stderr.write(f"farcast: {text[:1].lower()}{text[1:].rstrip('.')}; see `{where} --help`\n")
        return 2
    return code if isinstance(code, int) else 0


def _fail(sentence: str, code: int, *, debug: object) -> NoReturn:
    if debug or os.environ.get("FARCAST_DEBUG"):
        traceback.print_exc()
    sys.stderr.write(f"farcast: {sentence}\n")
    raise typer.Exit(code) from None
