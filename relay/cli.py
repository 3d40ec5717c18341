"""``farcast relay``: an operator's box."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from ..node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..node.home import default_home

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
    from ..node.duty import do_duty
    from .service import RelayService

    do_duty(home or default_home("relay", os.environ), "relay", RelayService, Console(as_json=as_json))


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


@app.callback()
def main() -> None:
    """Run a relay: cache and serve an origin's titles."""
