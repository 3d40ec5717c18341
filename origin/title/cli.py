"""``farcast origin publish``, ``release``, ``list``, ``retire``, ``deny``, ``purge``: a title's commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ...protocol.errors import UsageError
from ..command import perform

TitleArgument = Annotated[str, typer.Argument(help="The title's id, as `farcast origin list` shows it.")]
_ACCESS = {"open": "open to everybody", "ticket": "encrypted; plays with a ticket"}

app = typer.Typer()


@app.command(
    "publish", epilog="Example: farcast origin publish bunny.mp4 --title big-buck-bunny --payee blender"
)
@guarded
def publish_media(
    media: Annotated[Path, typer.Argument(help="A video file; a film.toml beside it may say more.")],
    title: Annotated[str | None, typer.Option(help="The title's id in the catalog.")] = None,
    for_payee: Annotated[str | None, typer.Option("--payee", help="Who gets everything it earns.")] = None,
    preset: Annotated[str, typer.Option(help="x264's preset, like ultrafast or slow.")] = "",
    loop_to: Annotated[float, typer.Option(help="Repeat a shorter film to at least so many seconds.")] = 0,
    access: Annotated[
        str, typer.Option(help="open, or ticket: encrypted, for ticket holders; before what film.toml says.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be published.")] = False,
    draft: Annotated[
        bool, typer.Option("--draft", help="Do not list it yet; `farcast origin release` does.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Encode a film, sign it and list it in the catalog; again, only what changed."""
    del debug
    console = Console(as_json=as_json)
    if not media.is_file():
        raise UsageError(f"{media} is no file; name a video file")
    if access not in ("", "open", "ticket"):
        raise UsageError(f"--access is open or ticket, not {access!r}")
    arguments = {
        "media": str(media.absolute()),
        "title": title,
        "payee": for_payee,
        "preset": preset,
        "loop_to_s": loop_to,
        "access": access,
        "dry_run": dry_run,
        "draft": draft,
    }
    found = perform(home, "publish", arguments, console, label=f"publish {media.name}")
    shares = ", ".join(f"{share['payee']} {share['basis_points'] / 100:g} %" for share in found["payees"])
    for warning in found["warnings"]:
        console.warn(warning)
    if dry_run:
        console.result(found, *_forecast_lines(found, shares))
        return
    what = f"Published {found['title']} version {found['version']}"
    if draft:
        what = f"Drafted {found['title']}; list it with: farcast origin release {found['title']}"
    elif not found["changed"]:
        what = f"{found['title']} is published already; nothing changed"
    console.result(
        found,
        what,
        f"  name      {found['name']}",
        f"  length    {_clock(found['duration_s'])}, {found['bytes'] / 1e6:.1f} MB, "
        f"{found['renditions']} renditions",
        f"  blocks    {found['blocks']}, {found['new_blocks']} of them new",
        f"  access    {_ACCESS[found['access']]}",
        f"  pays      {shares}",
        f"  root      {found['root_cid']}",
        *_kubo_lines(found["kubo"], console),
    )


@app.command(epilog="Example: farcast origin release big-buck-bunny")
@guarded
def release(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List a draft in the catalog."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "release", {"title": title}, console, label=f"release {title}")
    console.result(
        found,
        f"Released {found['title']} version {found['version']}",
        f"  root      {found['root_cid']}",
        *_kubo_lines(found["kubo"], console),
    )


@app.command("list", epilog="Example: farcast origin list --json")
@guarded
def list_titles(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List what the catalog offers."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "list", {}, console)
    console.table(
        ["title", "name", "version", "length", "MB", "published", "access", "pays"],
        [
            (
                row["title"],
                row["name"],
                row["version"],
                _clock(row["duration_s"]),
                round(row["bytes"] / 1e6, 1),
                row["published"] or "draft",
                row["access"],
                ", ".join(row["payees"]),
            )
            for row in found["titles"]
        ],
    )
    console.result(found, *([] if found["titles"] else ["Nothing yet: farcast origin publish MEDIA"]))


@app.command(epilog="Example: farcast origin retire big-buck-bunny")
@guarded
def retire(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Take a title off the list; whoever holds it may keep playing it."""
    del debug
    _withdraw(home, "retire", title, f"{title} is no longer listed", Console(as_json=as_json))


@app.command(epilog="Example: farcast origin deny big-buck-bunny")
@guarded
def deny(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Take a title down, every version of it: each box that follows this catalog drops and refuses it."""
    del debug
    _withdraw(home, "deny", title, f"{title} is taken down", Console(as_json=as_json))


@app.command(epilog="Example: farcast origin purge big-buck-bunny")
@guarded
def purge(
    title: TitleArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Delete what only a title off the list needs, and say which tier still has it."""
    del debug
    _withdraw(home, "purge", title, f"{title} is deleted here", Console(as_json=as_json))


def _withdraw(home: Path | None, action: str, title: str, sentence: str, console: Console) -> None:
    """Do an action that takes a title from the tiers, and show how long each of them took."""
    found = perform(home, action, {"title": title}, console, label=f"{action} {title}")
    console.say(sentence)
    rows = [
        (
            row["tier"],
            row["name"],
            row["state"] + (f" until {row['until']}" if row["until"] else ""),
            "" if row["seconds"] is None else f"{row['seconds']:.1f} s",
        )
        for row in found["tiers"]
    ]
    console.table(["tier", "who", "state", "after"], rows)
    resting = [] if found["running"] else ["The relays hear of it once this origin runs: farcast origin run"]
    console.result(found, *resting)
    if found["failed"]:
        still = ", ".join(found["failed"])
        console.warn(f"not purged at {still}; `farcast origin purge {title}` takes up what is left")
        raise typer.Exit(1)


def _forecast_lines(found: dict[str, Any], shares: str) -> list[str]:
    """Say what publishing would do."""
    done = "publish a new version of" if found["listed"] else "publish"
    rungs = ", ".join(f"{rung['width']}x{rung['height']}" for rung in found["rungs"])
    work = "nothing: it is encoded already"
    if not found["encoded"]:
        from_s = found["encoded_s"]
        work = f"all but its first {_clock(from_s)}" if 0 < from_s < found["duration_s"] else "all of it"
        work = "its sounds; the picture is encoded already" if from_s >= found["duration_s"] else work
    languages = {
        kind: ", ".join(row["label"] or row["language"] or "of no language" for row in found[kind]) or "none"
        for kind in ("sounds", "subtitles")
    }
    return [
        f"Would {done} {found['title']} ({found['name']}, {_clock(found['duration_s'])}), paying {shares}",
        f"  pictures  {rungs}",
        f"  sounds    {languages['sounds']}",
        f"  subtitles {languages['subtitles']}",
        f"  size      at most {found['bytes_at_most'] / 1e6:.1f} MB",
        f"  encodes   {work}",
    ]


def _kubo_lines(kubo: dict[str, Any] | None, console: Console) -> list[str]:
    """Say what became of a title in ``[kubo] rpc``; trouble there is a warning, the catalog has it done."""
    if kubo is None:
        return []
    if kubo["error"]:
        console.warn(kubo["error"])
    if not kubo["pinned"]:
        return [f"  kubo      not put into {kubo['rpc']}; publish again when that is mended"]
    announced = "announced" if kubo["announced"] else "not announced, because it has no peers"
    return [f"  kubo      pinned in Kubo {kubo['version']} at {kubo['rpc']}, {announced}"]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
