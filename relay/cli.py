"""``farcast relay``: an operator's box."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..node.home import default_home
from ..protocol.errors import UsageError

if TYPE_CHECKING:
    from ..node.home import Home
    from ..node.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run a relay: cache and serve an origin's titles.",
    rich_markup_mode=None,
)


@app.command(epilog="Example: farcast relay join 'farcast://origin.example:7433/join?root=...' --payee anna")
@guarded
def join(
    link: Annotated[
        str, typer.Argument(help="A relay invite link, the path of a root.json, or - for a link on stdin.")
    ],
    payee: Annotated[str, typer.Option(help="Who is paid for what this relay serves.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Join an origin: trust it, publish this relay's address in its directory."""
    del debug
    from .joining import join_as_relay

    console = Console(as_json=as_json)
    path = home or default_home("relay", os.environ)
    joined, standing, endpoints = asyncio.run(join_as_relay(path, link, payee))
    console.result(
        {
            "name": joined.name,
            "origin": joined.origin,
            "standing": standing,
            "endpoints": endpoints,
            "home": str(path),
        },
        f"Joined {joined.name}",
        f"  its key      {joined.origin}",
        f"  standing     {standing}",
        f"  published    {', '.join(endpoints)} (the directory shows this address to everybody)",
        f"Next: farcast relay run{f' --home {path}' if home else ''}",
    )


@app.command(epilog="Example: farcast relay run")
@guarded
def run(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Serve until Ctrl-C."""
    del debug
    from ..node.duty import Duty, do_duty
    from .service import RelayService
    from .standalone import StandaloneService, is_standalone

    path = home or default_home("relay", os.environ)

    def make(opened: Home, settings: Settings) -> Duty:
        return (StandaloneService if is_standalone(path) else RelayService)(opened, settings)

    do_duty(path, "relay", make, Console(as_json=as_json))


@app.command(epilog="Example: farcast relay status --json")
@guarded
def status(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say in one line how this relay stands, then the numbers."""
    del debug
    from ..node.admin import call_admin

    path = home or default_home("relay", os.environ)
    found = call_admin(path, "GET", "/api/status", role="relay")
    Console(as_json=as_json).result(
        found,
        str(found["verdict"]),
        f"  titles          {found['titles']}",
        f"  held            {found['store']['blocks']} blocks, {found['store']['bytes']} bytes",
        f"  pulses waiting  {found['pulses_waiting']}",
    )


@app.command("init", epilog="Example: farcast relay init --standalone")
@guarded
def init(
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Without an origin: serve imported CARs.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a relay that has no origin: it serves what you import and fetches nothing."""
    del debug
    from .standalone import make_standalone

    if not standalone:
        raise UsageError(
            "a relay is made by `farcast relay join LINK`, or by `farcast relay init --standalone`"
        )
    path = home or default_home("relay", os.environ)
    peer_id = make_standalone(path)
    where = f" --home {path}" if home else ""
    Console(as_json=as_json).result(
        {"peer_id": peer_id, "home": str(path)},
        f"Made a standalone relay in {path}",
        f"  its key      {peer_id}",
        f"Next: farcast relay import FILE.car{where}, then farcast relay run{where}",
    )


@app.command("import", epilog="Example: farcast relay import film.car --label film")
@guarded
def import_(
    file: Annotated[Path, typer.Argument(help="A CARv1 file.")],
    label: Annotated[
        str, typer.Option(help="The name it is kept under.", show_default="the file's name")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Import a CAR: verify every block, keep it, serve it by its roots."""
    del debug
    from .importdesk import import_car
    from .imports import label_of

    console = Console(as_json=as_json)
    path = home or default_home("relay", os.environ)
    with console.progress(file.name) as report:
        done = import_car(path, file, label or label_of(file), report)
    console.result(
        done,
        f"Imported {done['blocks']} blocks, {done['bytes']} bytes, as {done['label']}",
        f"  new here  {done['new_blocks']} blocks, {done['new_bytes']} bytes",
        *(f"  root      {root}" for root in done["roots"]),
    )


@app.callback()
def main() -> None:
    """Run a relay: cache and serve an origin's titles."""
