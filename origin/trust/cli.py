"""``farcast origin init``, ``announce`` and ``renew``: the root of trust and what it tells of this origin."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Annotated

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ...protocol.errors import UsageError
from ..command import origin_home, perform
from ..passphrase import read_passphrase

DEFAULT_PORT = 7433
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line is the root key's passphrase."),
]

app = typer.Typer()


@app.command(epilog="Example: farcast origin init --name 'My films' --endpoint films.example:7433")
@guarded
def init(
    name: Annotated[str, typer.Option(help="What viewers see; this machine's name by default.")] = "",
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT where viewers come, or https://HOST; may be repeated."),
    ] = None,
    cdn: Annotated[
        list[str] | None, typer.Option(help="Base URL of a CDN pull zone; may be repeated.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an origin: its keys and its root of trust. A home already in use stays untouched."""
    del debug
    from ..keys import init as make
    from .places import parse_cdn, parse_endpoint

    console, path = Console(as_json=as_json), origin_home(home)
    endpoints = [parse_endpoint(text) for text in endpoint or [_guessed_endpoint()]]
    passphrase = read_passphrase(passphrase_file)
    zones = [parse_cdn(text) for text in cdn or []]
    made = make(path, name or socket.gethostname(), endpoints, passphrase, time.time(), cdn=zones)
    for warning in made.warnings:
        console.warn(warning)
    if not endpoint:
        console.warn(
            f"viewers are told to come to {endpoints[0].host}:{endpoints[0].port}; "
            "`farcast origin announce HOST:PORT` tells them another place"
        )
    shown = (
        [f"  passphrase  {made.passphrase}  (of the root key; it is not shown again)"]
        if made.passphrase
        else []
    )
    console.result(
        {
            "name": made.name,
            "peer_id": made.peer_id,
            "home": str(path),
            "root": str(made.root_path),
            "root_sha256": made.root_sha256,
            "sealed_root_key": str(made.sealed_root),
            "passphrase": made.passphrase,
            "endpoints": [f"{place.host}:{place.port}" for place in endpoints],
        },
        f"Made the origin {made.name!r} in {path}",
        f"  its key     {made.peer_id}",
        f"  root        {made.root_path}",
        f"  root key    {made.sealed_root}",
        *shown,
        "Next: farcast origin payee add ID, farcast origin publish MEDIA, farcast origin run",
    )


@app.command(epilog="Example: farcast origin announce films.example:7433 --cdn https://cdn.example/films")
@guarded
def announce(
    endpoint: Annotated[
        list[str] | None, typer.Argument(help="HOST:PORT where viewers reach this origin, or https://HOST.")
    ] = None,
    cdn: Annotated[
        list[str] | None, typer.Option(help="Base URL of a CDN pull zone; may be repeated.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell every box where this origin and its CDN are; without arguments, show what is told."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "announce", {"endpoints": endpoint or None, "cdn": cdn or None}, console)
    console.result(
        found,
        f"endpoints  {', '.join(found['endpoints']) or 'none'}",
        f"cdn        {', '.join(found['cdn']) or 'none'}",
    )


@app.command(epilog="Example: farcast origin renew --passphrase-file /root/passphrase")
@guarded
def renew(
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Sign the root of trust for another year with the root key."""
    del debug
    console = Console(as_json=as_json)
    passphrase = read_passphrase(passphrase_file)
    if passphrase is None:
        raise UsageError("the root key is under a passphrase: name its file with --passphrase-file")
    found = perform(home, "renew", {"passphrase": passphrase}, console)
    console.result(found, f"root.json is now version {found['version']} and holds until {found['expires']}")


def _guessed_endpoint() -> str:
    """Return this machine's own address towards the Internet; asks the routing table, sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): connecting a datagram socket is silent
            host = str(probe.getsockname()[0])
        except OSError:
            host = "127.0.0.1"
    return f"{host}:{DEFAULT_PORT}"
