"""``farcast relay``: an operator's box."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from ..node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..node.home import default_home
from ..protocol.errors import LocalError, RemoteError, UsageError
from .lines import status_lines

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
    unlisted: Annotated[
        bool, typer.Option("--unlisted", help="Enrol, but stay out of the public directory.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Join an origin: trust it, publish this relay's address in its directory."""
    del debug
    from .joining import join_as_relay

    console = Console(as_json=as_json)
    path = home or default_home("relay", os.environ)
    found = asyncio.run(join_as_relay(path, link, payee, unlisted=unlisted, tell=console.warn))
    shown = "not in the directory" if unlisted else "the directory shows this address to everybody"
    standing = found.standing + (f": {found.reason}" if found.reason else "")
    console.result(
        {
            "name": found.joined.name,
            "origin": found.joined.origin,
            "standing": found.standing,
            "reason": found.reason,
            "endpoints": found.endpoints,
            "unlisted": unlisted,
            "home": str(path),
        },
        f"Joined {found.joined.name}",
        f"  its key      {found.joined.origin}",
        f"  standing     {standing}",
        f"  published    {', '.join(found.endpoints)} ({shown})",
        f"Next: farcast relay run{f' --home {path}' if home else ''}",
    )


@app.command(epilog="Example: farcast relay check 'farcast://origin.example:7433/join?root=...'")
@guarded
def check(
    link: Annotated[
        str | None,
        typer.Argument(help="The origin's link or root.json: it then dials this box back. Spends no invite."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Before joining: is this box reachable, fast enough, with room, and right in its clock?"""
    del debug
    from .check import check as look

    console = Console(as_json=as_json)
    found = asyncio.run(look(home or default_home("relay", os.environ), link))
    shown = ", ".join(found.published) or "nothing yet: set [network] announce to HOST:PORT"
    console.result(
        {
            "verdict": found.verdict,
            "ready": found.ready,
            "findings": [finding._asdict() for finding in found.findings],
            "published": found.published,
        },
        found.verdict,
        *(finding.line for finding in found.findings),
        "`farcast relay join` enrols this box, and the origin's directory then shows everybody its address:",
        f"  {shown}",
    )
    if not found.ready:
        raise typer.Exit(1)


@app.command(epilog="Example: farcast relay run")
@guarded
def run(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Serve until Ctrl-C."""
    del debug
    from ..node.duty import do_duty
    from .standalone import relay_of

    do_duty(home or default_home("relay", os.environ), "relay", relay_of, Console(as_json=as_json))


@app.command(epilog="Example: farcast relay status --json")
@guarded
def status(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say in one line how this relay stands, then the numbers."""
    del debug
    from ..node.admin import call_admin

    path = home or default_home("relay", os.environ)
    found = call_admin(path, "GET", "/api/status", role="relay")
    Console(as_json=as_json).result(found, *status_lines(found))


@app.command(epilog="Example: farcast relay pause")
@guarded
def pause(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Begin no new transfer; those under way finish. Holds across restarts, until `resume`."""
    del debug
    _switch(home, "pause", Console(as_json=as_json))


@app.command(epilog="Example: farcast relay resume")
@guarded
def resume(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Serve again after `pause`."""
    del debug
    _switch(home, "resume", Console(as_json=as_json))


@app.command(epilog="Example: farcast relay leave --purge")
@guarded
def leave(
    purge: Annotated[bool, typer.Option("--purge", help="Remove the home with its key and blocks.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Leave the origin's directory for good; the home stays unless you say --purge."""
    del debug
    from .leaving import leave as leave_origin

    path = home or default_home("relay", os.environ)
    left = asyncio.run(leave_origin(path, purge=purge))
    Console(as_json=as_json).result(
        left._asdict() | {"home": str(path)},
        f"Left {left.name}: its directory shows this relay no more",
        f"  {path} is removed" if left.purged else f"  {path} is kept; `farcast relay join LINK` joins again",
        *([f"  {left.pulses} pulses for the origin were still waiting"] if left.pulses else []),
    )


def _switch(home: Path | None, action: str, console: Console) -> None:
    from ..node.admin import call_admin

    path = home or default_home("relay", os.environ)
    found = call_admin(path, "POST", f"/api/{action}", role="relay")
    words = {"paused": "Paused: what is under way finishes, nothing new begins", "serving": "Serving again"}
    hibernating = "Resumed, but the month's volume is used: `farcast relay status` says until when"
    told = "the origin knows" if found["origin_told"] else "the origin hears of it when it can be reached"
    console.result(
        found,
        words.get(found["state"], hibernating),
        f"  connections  {found['connections']} open",
        *([] if found["origin_told"] is None else [f"  directory    {told}"]),
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


CidArgument = Annotated[str, typer.Argument(metavar="CID", help="A file's or folder's CID.")]


@app.command(epilog="Example: farcast relay pin bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
@guarded
def pin(
    cid: CidArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Bring a file or folder from the gateways of [ipfs] pin_from, verified, and keep it."""
    del debug
    import time

    from ..node.admin import call_admin

    console, path, name = Console(as_json=as_json), home or default_home("relay", os.environ), _cid(cid)
    found = call_admin(path, "POST", f"/api/pins/{name}", role="relay")
    with console.progress(f"pinning {name}") as report:
        while not found["whole"] and not found["error"]:
            report(
                f"{found['held_blocks']} of {found['blocks']} blocks", found["held_blocks"], found["blocks"]
            )
            time.sleep(0.2)
            found = call_admin(path, "GET", f"/api/pins/{name}", role="relay")
    if found["error"]:
        message = f"{found['error']}; `farcast relay pin {name}` goes on from here"
        raise LocalError(message, reason="not_whole")
    console.result(found, f"Pinned {name}: {found['blocks']} blocks, {found['bytes'] / 1e6:.1f} MB")


@app.command(
    epilog="Example: farcast relay unpin bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
)
@guarded
def unpin(
    cid: CidArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Give up what `pin` brought; its blocks stay while there is room."""
    del debug
    from ..node.admin import call_admin

    path, name = home or default_home("relay", os.environ), _cid(cid)
    found = call_admin(path, "DELETE", f"/api/pins/{name}", role="relay")
    Console(as_json=as_json).result(found, f"{name} is no longer pinned")


def _cid(text: str) -> str:
    """Read a CID as people copy it, with or without /ipfs/ in front; raises ``UsageError``."""
    from ..protocol.cid import Cid

    try:
        return str(Cid.parse(text.removeprefix("ipfs://").removeprefix("/ipfs/").rstrip("/")))
    except RemoteError as error:
        raise UsageError(str(error)) from error


@app.callback()
def main() -> None:
    """Run a relay: cache and serve an origin's titles."""
