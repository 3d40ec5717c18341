"""``farcast``: a viewer's node, and what needs no role.

Over 400 lines because every command states its options, help and example where it is defined.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ..protocol.errors import LocalError, RemoteError, UsageError
from .admin import call_admin
from .console import Console, DebugOption, HomeOption, JsonOption, guarded
from .home import default_home

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Video where the network is hostile, poor or gone.",
    epilog="Other duties: farcast origin --help, farcast relay --help, farcast simulate --help. "
    "Start with: farcast demo",
)

TitleArgument = Annotated[str, typer.Argument(help="The title's id, as `farcast list` shows it.")]


def _home(home: Path | None) -> Path:
    return home or default_home("node", os.environ)


@app.command(epilog="Example: farcast join 'farcast://origin.example:7433/join?root=...&token=...'")
@guarded
def join(
    link: Annotated[
        str, typer.Argument(help="An invite link, the path of a root.json, or - for a link on stdin.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Trust an origin and become a viewer's node; an account invite also enrols this device."""
    del debug
    from .catalog.join import join as join_origin
    from .settings import Settings

    path = _home(home)
    joined = asyncio.run(join_origin(path, "node", Settings.load(path, os.environ), link))
    enrolled = "this device counts for its account" if joined.enrolled else "watching is not counted"
    reached = "reached" if joined.online else "not reachable now; titles come by LAN or satellite"
    Console(as_json=as_json).result(
        {**joined._asdict(), "home": str(path)},
        f"Joined {joined.name}",
        f"  its key   {joined.origin}",
        f"  origin    {reached}",
        f"  account   {enrolled}",
        f"Next: farcast run{f' --home {path}' if home else ''}",
    )


@app.command(epilog="Example: farcast run --lan")
@guarded
def run(
    lan: Annotated[
        bool,
        typer.Option("--lan", help="Serve televisions at home; print address and QR code."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the node: gateway for players, mesh, satellite receiver; until Ctrl-C."""
    del debug
    if lan:
        os.environ["FARCAST_LAN_ENABLED"] = "true"
    from .duty import do_duty
    from .viewer import Viewer

    do_duty(_home(home), "node", Viewer, Console(as_json=as_json))


@app.command(name="list", epilog="Example: farcast list bunny")
@guarded
def list_titles(
    query: Annotated[str, typer.Argument(help="Only titles with this in their name.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the titles: length, size, how much is held here, whether they play offline."""
    del debug
    console = Console(as_json=as_json)
    found: list[dict[str, Any]] = call_admin(_home(home), "GET", "/api/titles")
    rows = [row for row in found if query.lower() in f"{row['title']} {row['name']}".lower()]
    console.table(
        ["title", "name", "length", "size", "held", "offline", "access"],
        [
            (
                row["title"],
                row["name"],
                f"{row['duration_s'] // 60}:{row['duration_s'] % 60:02}",
                f"{row['size_bytes'] / 1e6:.1f} MB",
                f"{row['held_percent']} %",
                "yes" if row["held_percent"] == 100 else "no",  # noqa: PLR2004 - whole
                "locked" if row["locked"] else row["access"],
            )
            for row in rows
        ],
    )
    none = f"No title has {query!r} in its name." if found else "No titles yet: no catalog, or an empty one."
    console.result(rows, *([] if rows else [none]))


@app.command(epilog="Example: mpv $(farcast play big-buck-bunny --url)")
@guarded
def play(
    title: TitleArgument,
    url: Annotated[bool, typer.Option("--url", help="Only print the HLS address.")] = False,
    dash: Annotated[bool, typer.Option("--dash", help="With --url: the DASH address instead.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print where a player finds the title, and open the page in a browser."""
    del debug
    found = call_admin(_home(home), "GET", f"/api/titles/{title}")
    console = Console(as_json=as_json)
    if found["locked"]:
        raise RemoteError(str(found["locked"]), reason="locked")
    if url:
        console.result(found, str(found["watch_dash" if dash else "watch_hls"]))
        return
    opened = typer.launch(str(found["player"])) == 0 if not as_json else False
    console.result(
        found,
        f"HLS address   {found['watch_hls']}",
        f"DASH address  {found['watch_dash']}",
        f"player page   {found['player']}{'' if opened else ' (open it in a browser)'}",
        f"tier in use   {found['tier_in_use'] or 'none yet'}",
    )


@app.command(epilog="Example: farcast keep big-buck-bunny")
@guarded
def keep(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Fetch all of a title and keep it for offline."""
    del debug
    console, path = Console(as_json=as_json), _home(home)
    found = call_admin(path, "POST", f"/api/titles/{title}/keep")
    with console.progress(f"keeping {title}") as report:
        while found["held_blocks"] < found["blocks"] and not found["error"]:
            report(
                f"{found['held_blocks']} of {found['blocks']} blocks", found["held_blocks"] / found["blocks"]
            )
            import time

            time.sleep(0.5)
            found = call_admin(path, "GET", f"/api/titles/{title}/keep")
        if not found["error"]:
            report("kept", 1.0)
    if found["error"]:
        message = f"{title} is not whole yet: {found['error']}; `farcast keep {title}` goes on from here"
        raise LocalError(message, reason="not_whole")
    size = f"Kept {title}: {found['bytes'] / 1e6:.1f} MB"
    locked = f"{size}; but it does not play now: {found['locked']}"
    console.result(found, locked if found["locked"] else f"{size}; it plays with no network")


@app.command(epilog="Example: farcast drop big-buck-bunny")
@guarded
def drop(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Let go of an offline copy; its blocks stay while there is room."""
    del debug
    found = call_admin(_home(home), "DELETE", f"/api/titles/{title}/keep")
    Console(as_json=as_json).result(found, f"{title} is no longer kept")


FolderArgument = Annotated[Path, typer.Argument(help="The folder where the stick is mounted.")]
TitlesArgument = Annotated[list[str] | None, typer.Argument(help="Only these titles.", show_default=False)]


@app.command(epilog="Example: farcast export /media/ann/STICK big-buck-bunny")
@guarded
def export(
    folder: FolderArgument,
    titles: TitlesArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Bring a USB stick up to date: whole titles, catalog, keys, pulses and acks; repeat it to go on."""
    del debug
    from .stick.desk import carry
    from .stick.words import exported_lines

    console = Console(as_json=as_json)
    with console.progress("exporting") as report:
        found = carry(_home(home), "export", folder, titles or [], report)
    console.result(found, *exported_lines(found))


@app.command(name="import", epilog="Example: farcast import /media/ann/STICK")
@guarded
def import_stick(
    folder: FolderArgument,
    titles: TitlesArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take titles, catalog, keys, pulses and acks from a USB stick; its titles are kept."""
    del debug
    from .stick.desk import carry
    from .stick.words import imported_lines, incomplete

    console = Console(as_json=as_json)
    with console.progress("importing") as report:
        found = carry(_home(home), "import", folder, titles or [], report)
    console.result(found, *imported_lines(found))
    if incomplete(found):
        raise typer.Exit(1)


@app.command(epilog="Example: farcast status --json")
@guarded
def status(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say in one line how this node stands, then the numbers."""
    from .radio import heard

    del debug
    found = call_admin(_home(home), "GET", "/api/status")
    console = Console(as_json=as_json)
    console.say(str(found["verdict"]))
    console.table(
        ["tier", "sources", "blocks", "bytes", "rejected"],
        [(t["name"], t["sources"], t["blocks"], t["bytes"], t["rejected"]) for t in found["tiers"]],
    )
    if found["dish"] is not None:
        console.say(str(found["dish"]["sentence"]))
    for line in heard(found["radio"]) if found["radio"] else []:
        console.say(f"radio: {line}")
    sky = found["satellite"]
    if sky is not None and sky["coming"]:
        first = sky["coming"][0]
        when = f"in {first['begins_in_s']} s" if first["begins_in_s"] else "now"
        console.say(f"next by satellite: {first['name']}, {when}")
    console.result(
        found,
        f"pulses: {found['pulses']['signed']} signed, {found['pulses']['waiting']} wait for the origin's ack",
    )


@app.command(epilog="Example: farcast doctor")
@guarded
def doctor(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say what is wrong with a box of any kind, running or not, and what mends it."""
    del debug
    from .doctor.doctor import visit

    patient, found = asyncio.run(visit(home, os.environ))
    console = Console(as_json=as_json)
    console.say(found.verdict)
    console.result(
        {
            "verdict": found.verdict,
            "ok": found.ok,
            "role": patient.role,
            "home": str(patient.home),
            "running": patient.running,
            "checks": [{**each._asdict(), "state": each.state.label} for each in found.findings],
        },
        *found.lines(),
    )
    if not found.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: farcast pulses export acks.bin")
@guarded
def pulses(
    action: Annotated[str, typer.Argument(help="show, on, off, or export: the origin's acks.")] = "show",
    file: Annotated[Path | None, typer.Argument(help="With export: where the acks go.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what left this box about viewing, switch pulses on or off, or export their acks."""
    del debug
    if action not in ("show", "on", "off", "export"):
        raise UsageError(f"pulses {action}: say show, on, off or export")
    if (action == "export") != (file is not None):
        raise UsageError("pulses export FILE writes the origin's acks; no other action names a file")
    path = _home(home)
    if file is not None:
        _export_acks(path, file, Console(as_json=as_json))
        return
    if action != "show":
        call_admin(path, "POST", "/api/pulses", {"on": action == "on"})
    found = call_admin(path, "GET", "/api/pulses")
    found["sent"] = call_admin(path, "GET", "/api/pulses/sent")
    state = "on" if found["on"] else "off: open titles play, nothing is counted"
    console = Console(as_json=as_json)
    console.table(
        ["made", "title", "viewed", "left by", "state"],
        [
            (
                f"{datetime.fromtimestamp(one['at_ms'] / 1_000, UTC).astimezone():%a %H:%M:%S}",
                one["title"] or "-",
                f"{one['viewed_ms'] / 1_000:.0f} s",
                one["way"] or "-",
                _became(one),
            )
            for one in found["sent"]
        ],
    )
    console.table(
        ["session begun", "viewed", "counted", "not counted for"],
        [
            (
                f"{datetime.fromtimestamp(one['at_ms'] / 1_000, UTC).astimezone():%a %H:%M:%S}"
                if one["at_ms"]
                else "-",
                f"{one['viewed_ms'] / 1_000:.0f} s",
                f"{one['counted_ms'] / 1_000:.0f} s",
                ", ".join(one["codes"]) or "-",
            )
            for one in found["sessions"]
        ],
    )
    console.result(
        found,
        f"pulses are {state}",
        f"  signed here       {found['signed']}",
        f"  wait for an ack   {found['waiting']}",
    )


def _became(pulse: dict[str, Any]) -> str:
    """Say in a word or two what became of a pulse."""
    if pulse["not_counted"]:
        return f"acked, not all counted: {', '.join(pulse['not_counted'])}"
    if pulse["judged_ms"]:
        return "counted"
    return f"refused: {pulse['reason']}" if pulse["reason"] else str(pulse["state"])


@app.command(epilog="Example: farcast earnings --month 2026-11")
@guarded
def earnings(
    month: Annotated[
        str, typer.Option(help="YYYY-MM; this month so far and the newest settled one by default.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this relay, or the payee of this box, earns: paid, held, not paid and why."""
    del debug
    from .earnings import earnings_lines

    relay = default_home("relay", os.environ)
    path = home or (relay if (relay / "admin.json").exists() else default_home("node", os.environ))
    found = call_admin(path, "GET", f"/api/earnings?month={quote(month)}")
    Console(as_json=as_json).result(found, *earnings_lines(found))


def _export_acks(path: Path, file: Path, console: Console) -> None:
    from base64 import b64decode

    from ..protocol.codec import encode
    from .home import write_whole

    acks: list[bytes] = []
    while True:
        found = call_admin(path, "GET", f"/api/pulses/acks?from={len(acks)}")
        acks += [b64decode(text) for text in found["acks"]]
        if not found["acks"] or len(acks) >= found["count"]:
            break
    data = encode(acks)
    try:
        write_whole(file, data)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    console.result(
        {"file": str(file), "acks": len(acks), "bytes": len(data)},
        f"Wrote {len(acks)} acks to {file}",
        f"Whoever has a month's report checks it against them: farcast verify DIR --receipts {file}",
    )


@app.command(epilog="Example: farcast cid film/")
@guarded
def cid(
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the CID of a file or folder, as IPFS would make it."""
    del debug
    from .blocks.cidpath import cid_of

    found = str(cid_of(path))
    Console(as_json=as_json).result({"cid": found, "path": str(path)}, found)


@app.command(epilog="Example: farcast verify reports/2026-11 --root root.json")
@guarded
def verify(
    folder: Annotated[Path, typer.Argument(help="A month's report directory, or a file of evidence.")],
    root: Annotated[Path | None, typer.Option(help="The origin's root.json; else this home's trust.")] = None,
    receipts: Annotated[Path | None, typer.Option(help="Acks that somebody kept.")] = None,
    payee: Annotated[str, typer.Option(help="Also print what this payee gets, and the proofs.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check a month's report, or evidence of a double signature, with the origin's public key alone."""
    del debug
    from .audit import audit, audit_evidence
    from .verdict import facts, sentences

    if folder.is_file():
        shown = audit_evidence(folder, root, _home(home))
        day = f"{date(1970, 1, 1) + timedelta(days=shown.day)}"
        bodies = [name.hex() for name in shown.hashes]
        Console(as_json=as_json).result(
            {"ok": True, "ticket": shown.tid.hex(), "day": day, "seq": shown.seq, "bodies": bodies},
            f"The key of ticket {shown.tid.hex()} ({day}) signed {len(bodies)} different pulses "
            f"under number {shown.seq}",
            *(f"  {name}" for name in bodies),
        )
        return
    verdict = audit(folder, root, receipts, payee, _home(home))
    lines = [verdict.sentence, *sentences(verdict)] if verdict.ok else []
    Console(as_json=as_json).result(facts(verdict), *lines)
    if not verdict.ok:
        raise RemoteError(f"the report in {folder} fails: {verdict.sentence}", reason="not_verified")


@app.command(epilog="Example: farcast key show")
@guarded
def key(
    action: Annotated[str, typer.Argument(help="show, or rotate: a relay takes a new key.")] = "show",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show this box's key: its peer id; or give a stopped relay a new one, under which it stays who it is."""
    del debug
    if action == "rotate":
        _rotate_key(home or default_home("relay", os.environ), Console(as_json=as_json))
        return
    if action != "show":
        raise UsageError(f"key {action}: say show or rotate")
    from .home import no_home, read_identity

    path = _home(home)
    if not path.exists():
        raise no_home(path, "node")
    found = read_identity(path).peer_id
    Console(as_json=as_json).result({"peer_id": found}, found)


def _rotate_key(path: Path, console: Console) -> None:
    from .box import clock_ms
    from .keyrotation import rotate
    from .settings import Settings

    found = asyncio.run(rotate(path, Settings.load(path, os.environ), clock_ms))
    console.result(
        found._asdict(),
        f"New key {found.new}",
        f"  in place of  {found.old}, which the origin refuses from now on",
        f"  still named  {found.relay}",
        "Next: farcast relay run",
    )


@app.command(epilog="Example: farcast config show")
@guarded
def config(
    action: Annotated[str, typer.Argument(help="show or check.")] = "show",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show every setting with its value and where that came from, or check them."""
    del debug
    from .settings import Settings

    if action not in ("show", "check"):
        raise UsageError(f"config {action}: say show or check")
    settings = Settings.load(_home(home), os.environ)
    rows = settings.rows()
    console = Console(as_json=as_json)
    if action == "check":
        console.result({"ok": True}, "The settings are right.")
        return
    console.table(["key", "value", "from"], rows)
    console.result([{"key": name, "value": value, "from": source} for name, value, source in rows])


@app.command(epilog="Example: farcast demo --media film.mp4 --json out.json")
@guarded
def demo(
    media: Annotated[
        Path | None, typer.Option(help="A film of your own; else one is made on the spot.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Leave everything up and print the addresses.")
    ] = False,
    keep_dir: Annotated[
        Path | None, typer.Option("--keep", help="Keep all homes and the report here.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.5, max=2.0, help="Playback rate.")] = 1.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
    debug: DebugOption = False,
) -> None:
    """Run the whole system on this machine: one film over four tiers, paid to the cent."""
    del debug
    from .demo.stage import run_demo

    code = run_demo(media=media, serve=serve, keep=keep_dir, speed=speed, json_file=json_file)
    raise typer.Exit(code)
