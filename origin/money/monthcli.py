"""``farcast origin settle``, ``report`` and ``evidence``: a month's end, and what others may check of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import origin_home, perform

MonthOption = Annotated[str | None, typer.Option(help="YYYY-MM; the month before this one by default.")]

app = typer.Typer()


@app.command(epilog="Example: farcast origin settle --month 2026-11")
@guarded
def settle(
    month: MonthOption = None,
    as_of: Annotated[
        str | None, typer.Option(help="Settle an open month as it stood then, like 2026-11-21T10:00:00Z.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compute and show, book nothing.")] = False,
    from_raw: Annotated[
        bool,
        typer.Option("--from-raw", help="Compute again from the intake log alone; book only if both agree."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Share a month's money by viewed time, to the cent."""
    del debug
    console = Console(as_json=as_json)
    arguments = {"month": month, "as_of": as_of, "dry_run": dry_run, "from_raw": from_raw}
    found = perform(home, "settle", arguments, console)
    _show_settlement(found, console)


@app.command(epilog="Example: farcast origin report --month 2026-11")
@guarded
def report(
    month: MonthOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a settled month's report, which anybody can verify."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "report", {"month": month}, console)
    root = origin_home(home) / "tuf" / "root.json"
    console.result(
        found,
        f"Wrote {found['folder']}",
        f"Anybody checks it with: farcast verify {found['folder']} --root {root}",
    )


@app.command(epilog="Example: farcast origin evidence cases")
@guarded
def evidence(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write evidence of sessions that signed two different pulses under one number; list false witnesses."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "evidence", {"folder": str(folder.absolute())}, console)
    console.table(
        ["what", "account", "day", "pulse", "file"],
        [(row["code"], row["account"], row["day"], row["seq"], row["file"] or "-") for row in found["cases"]],
    )
    files = sum(bool(row["file"]) for row in found["cases"])
    root = origin_home(home) / "tuf" / "root.json"
    console.result(
        found,
        f"{len(found['cases'])} cases, {files} files in {found['folder']}",
        *([f"Anybody checks one with: farcast verify FILE --root {root}"] if files else []),
    )


def _show_settlement(found: dict[str, Any], console: Console) -> None:
    if found["dry_run"]:
        console.say(f"{found['month']} would be settled like this; nothing is booked:")
    else:
        console.say(
            f"{found['month']} is settled" + ("" if found["posted"] else " already, with this very result")
        )
    rows = [
        ("revenue", found["revenue_cents"]),
        ("- costs, relay pay included", found["costs_cents"]),
        ("- reserve", found["reserve_cents"]),
        ("= pool, with what was carried here", found["pool_cents"]),
        *(
            [(f"  to {row['payee']}", row["cents"]) for row in found["payouts"]]
            if found["payouts_listed"]
            else [(f"  to {found['payees']} payees, each in the report's creators.csv", found["paid_cents"])]
        ),
        ("  held for a look", found["held_cents"]),
        ("  carried over", found["carried_cents"]),
    ]
    if found["capped_cents"]:
        rows.append(("    of that above the payers' cap, to nobody", found["capped_cents"]))
    console.table(["", "cents"], rows)
    if found["difference"]:
        console.table(
            ["account (debits positive)", "posted", "would be posted"],
            [(row["account"], row["posted_cents"], row["would_post_cents"]) for row in found["difference"]],
        )
        if (more := found["differences"] - len(found["difference"])) > 0:
            console.say(f"{more} more accounts differ")
    elif found["dry_run"]:
        console.say("This is what is posted already, to the cent.")
    next_ = [] if found["dry_run"] else [f"Next: farcast origin report --month {found['month']}"]
    console.result(found, *next_)
