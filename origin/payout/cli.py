"""``farcast origin payout``: what is owed and to whom, paying it, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pay what is owed to payees.")

PayoutArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The payout's id, or the unique beginning of it.")
]


@app.command("list", epilog="Example: farcast origin payout list --state unknown")
@guarded
def list_payouts(
    state: Annotated[
        str,
        typer.Option(help="accrued, eligible, reserved, sent, unknown, paid or failed; all by default."),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List what is owed to payees, and what was paid out of it."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_list", {"state": state}, console)
    console.table(
        ["payee", "owed", "state", "why"],
        [(row["payee"], row["cents"], row["state"], row["reason"]) for row in found["owed"]],
    )
    console.table(
        ["payout", "payee", "by", "gross", "tax", "net", "state", "changed", ""],
        [(*_cells(row), row["changed"], row["reason"] or row["reference"]) for row in found["payouts"]],
    )
    _warn(found, console)
    nothing = not found["owed"] and not found["payouts"]
    console.result(found, *(["Nothing is owed and nothing was paid out"] if nothing else []))


@app.command(epilog="Example: farcast origin payout run --dry-run")
@guarded
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be paid.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Order every payout that is due, send it, and look after those that are under way."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_run", {"dry_run": dry_run}, console, label="payout run")
    console.table(
        ["payout", "payee", "by", "gross", "tax", "net", "state", ""],
        [(*_cells(row), row["reference"]) for row in found["payouts"]],
    )
    _warn(found, console)
    files = sorted({row["reference"] for row in found["payouts"] if row["reference"].endswith(".xml")})
    total = f"{found['net_cents']} cents to pay, {found['tax_cents']} withheld"
    console.result(
        found,
        f"{'Would be ' if dry_run else ''}{total}" if found["payouts"] else "Nothing is due",
        *(
            f"Give {found['folder']}/{name} to your bank, then: farcast origin payout confirm ID"
            for name in files
        ),
    )


@app.command(epilog="Example: farcast origin payout confirm 3f2a91c04b7d")
@guarded
def confirm(
    payout: PayoutArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Say that a payout by file or by hand has arrived."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_confirm", {"payout": payout}, console)
    console.result(found, f"{found['id'][:12]} is paid: {found['net_cents']} cents to {found['payee']}")


@app.command(epilog="Example: farcast origin payout fail 3f2a91c04b7d --reason 'account closed'")
@guarded
def fail(
    payout: PayoutArgument,
    reason: Annotated[str, typer.Option(help="Why; it stays in the books' record.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say that a payout by file or by hand did not arrive and never will: it is owed again."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_fail", {"payout": payout, "reason": reason}, console)
    console.result(
        found, f"{found['id'][:12]} failed: {found['gross_cents']} cents are owed to {found['payee']} again"
    )


@app.command(epilog="Example: farcast origin payout read camt054-2026-12-07.xml")
@guarded
def read(
    file: Annotated[Path, typer.Argument(help="The bank's camt.054 notification or pain.002 status report.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take from a bank's file which SEPA payouts arrived and which never will."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_read", {"file": str(file.absolute())}, console)
    console.table(
        ["payout", "state", "not taken because"],
        [(row["id"][:12], row["state"], row["why"]) for row in found["payouts"]],
    )
    console.result(found, *([] if found["payouts"] else ["The bank says nothing final of any payout"]))


@app.command(epilog="Example: farcast origin payout show 3f2a91c04b7d")
@guarded
def show(
    payout: PayoutArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Show a payout and everything that happened to it."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payout_show", {"payout": payout}, console)
    to: dict[str, Any] = found["to"] or {}
    why = f": {found['reason']}" if found["reason"] else ""
    console.say(f"{found['id']} is {found['state']}{why}")
    console.say(
        f"  to        {found['payee']} {to.get('iban') or to.get('account') or ''} by {found['method']}"
    )
    console.say(
        f"  cents     {found['gross_cents']} = {found['net_cents']} net + {found['tax_cents']} tax"
        f" {found['region']}"
    )
    console.say(f"  reference {found['reference'] or 'none yet'}")
    console.table(
        ["at", "state", "request", "why"],
        [(row["at"], row["state"], row["attempt"], row["reason"]) for row in found["events"]],
    )
    console.result(found)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    """Return what every table says of a payout."""
    names = ("payee", "method", "gross_cents", "tax_cents", "net_cents", "state")
    return row["id"][:12], *(row[name] for name in names)


def _warn(found: dict[str, Any], console: Console) -> None:
    for row in found["troubles"]:
        console.warn(f"nobody can be paid by {row['method']}: {row['trouble']}")
