"""``farcast demo``: origin, CDN, relays, neighbour and viewer's node; one film over four tiers, paid.

The stage only runs commands, sends signals, calls admin APIs and reads metrics; everything that is
shown happens in the processes it started, each of them the real thing.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from ...protocol.errors import FarcastError, UsageError
from ..home import write_whole
from .board import Board
from .cast import Cast, choose_film
from .scenes import evening
from .troupe import Troupe, clean_environment

ENDINGS = (signal.SIGINT, signal.SIGTERM)
BYTECODE = "bytecode"


def run_demo(
    *, media: Path | None, serve: bool, keep: Path | None, speed: float, json_file: Path | None
) -> int:
    """Run the demo; returns the exit code: 0 only where everything it promises held.

    ``keep`` leaves all homes and the report there; otherwise no file and no process stays behind.
    """
    folder = _folder(keep)
    board = Board(sys.stdout)
    troupe = Troupe(folder, _environment(folder))
    began = time.monotonic()
    # both, because a shell starts a background job with SIGINT ignored
    previous = {number: signal.signal(number, _interrupt) for number in ENDINGS}
    try:
        film = choose_film(media, folder)
        cast = Cast(troupe, folder, board, film, speed=speed)
        cast.assemble(carousel=serve)
        if serve:
            result = cast.addresses()
            _write(json_file, result)
            board.addresses(result)
            _wait(troupe)
            return 0
        result, failures = asyncio.run(evening(cast, board))
        result["wall_s"] = round(time.monotonic() - began, 1)
        _write(json_file, result)
        board.verdict(result, failures)
        return 1 if failures else 0
    except KeyboardInterrupt:
        board.note("stopped")
        return 0 if serve else 130
    except FarcastError as error:
        sys.stderr.write(f"farcast: the demo ended early: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    finally:
        for number in ENDINGS:  # a second Ctrl-C must not leave processes behind
            signal.signal(number, signal.SIG_IGN)
        board.close()
        troupe.close()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            shutil.rmtree(folder / BYTECODE, ignore_errors=True)
            sys.stdout.write(f"kept in {folder}\n")
        for number, handler in previous.items():
            signal.signal(number, handler)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="farcast-demo-"))
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    return keep.resolve()


def _environment(folder: Path) -> dict[str, str]:
    """Return the processes' environment; where Python may not write bytecode, the demo keeps its own."""
    environment = clean_environment({"PYTHONUNBUFFERED": "1"})
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):  # else thirty processes compile the same modules
        environment["PYTHONPYCACHEPREFIX"] = str(folder / BYTECODE)
    return environment


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let SIGTERM end the demo as Ctrl-C does."""
    del number, frame
    raise KeyboardInterrupt


def _wait(troupe: Troupe) -> None:
    expected = len(troupe.alive())
    while len(troupe.alive()) == expected:
        time.sleep(0.5)
    sys.stderr.write("farcast: one of the demo's processes ended; stopping the others\n")


def _write(path: Path | None, result: dict[str, object]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(result, indent=2).encode() + b"\n", mode=0o644)
