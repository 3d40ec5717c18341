"""``farcast origin book`` and ``ledger``: what came in and went out, and where it stands."""

from __future__ import annotations

from typing import Annotated

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

app = typer.Typer()


@app.command(epilog="Example: farcast origin book tip 500 --payee ada")
@guarded
def book(
    kind: Annotated[str, typer.Argument(help="revenue, cost, tip, patron, collaboration or refund.")],
    cents: Annotated[
        int,
        typer.Argument(help="The sum in the currency's smallest unit; of a refund the transaction's number."),
    ],
    for_account: Annotated[str | None, typer.Option("--account", help="Whose money it was.")] = None,
    payee: Annotated[str, typer.Option(help="Who gets the tip or the patron's sum.")] = "",
    split: Annotated[
        str, typer.Option(help="Who shares a collaboration, in basis points, like ada=6000,ben=4000.")
    ] = "",
    note: Annotated[str, typer.Option(help="What it was for.")] = "",
    month: Annotated[
        str | None, typer.Option(help="YYYY-MM, an earlier month not settled yet; this month by default.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Book what came in or went out: of the month's pool, for a payee, or back again."""
    del debug
    console = Console(as_json=as_json)
    arguments = {
        "kind": kind, "cents": cents, "account": for_account, "note": note, "month": month, "payee": payee,
        "split": split,
    }  # fmt: skip
    found = perform(home, "book", arguments, console)
    done = "Booked" if found["posted"] else "Already booked:"
    what = f"of transaction {cents}, {found['cents']} cents" if kind == "refund" else f"of {cents} cents"
    console.result(
        found,
        f"{done} {kind} {what} for {found['month']} (transaction {found['transaction']})",
        *(f"  {row['payee']:<9} {row['cents']} cents" for row in found["payees"]),
        *([f"  fee       {found['fee_cents']} cents"] if found["fee_cents"] else []),
    )


@app.command(epilog="Example: farcast origin ledger --account payable:ada")
@guarded
def ledger(
    account: Annotated[
        str | None, typer.Option(help="One account's entries; without it the balances of all.")
    ] = None,
    after: Annotated[int, typer.Option(help="Entries behind this transaction, 10,000 at a time.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the books: positive cents are held or spent, negative ones are owed or earned."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "ledger", {"account": account, "after": after}, console)
    console.say(
        f"{found['ledger']}: {found['transactions']} transactions, cents of {found['currency']}, "
        f"head {found['head'][:16]}"
    )
    if account is None:
        console.table(["account", "cents"], [(row["account"], row["cents"]) for row in found["balances"]])
        console.result(found, *([] if found["balances"] else ["Nothing is booked: farcast origin book"]))
        return
    console.table(
        ["transaction", "at", "kind", "cents", "memo"],
        [(row["transaction"], row["at"], row["kind"], row["cents"], row["memo"]) for row in found["entries"]],
    )
    console.result(found, f"Balance of {account}: {found['balances'][0]['cents']} cents")
