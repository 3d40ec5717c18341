"""``farcast origin relays``: who carries, who may, and who may not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="List relays; approve or refuse one."
)


@app.callback(epilog="Example: farcast origin relays")
@guarded
def relays_list(
    context: typer.Context, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List the relays and how they stand; `approve ID` and `refuse ID` decide."""
    del debug
    if context.invoked_subcommand is not None:
        return
    console = Console(as_json=as_json)
    found = perform(home, "relays", {}, console)
    console.table(
        ["relay", "standing", "where", "in the directory", "paid to", "record of"],
        [
            (
                row["id"],
                "expired" if row["expired"] and row["standing"] == "approved" else row["standing"],
                ", ".join(row["endpoints"]),
                _in_directory(row),
                row["payee"],
                row["seen"],
            )
            for row in found["relays"]
        ],
    )
    console.result(found, *([] if found["relays"] else ["No relays yet: farcast origin invite --relay"]))


def _in_directory(row: dict[str, Any]) -> str:
    """Say whether a relay is in the directory, and else why not."""
    if row["listed"]:
        return "yes"
    return "; ".join(row["faults"]) if row["wish"] == "listed" else str(row["wish"])


@app.command("approve", epilog="Example: farcast origin relays approve 12D3KooW...")
@guarded
def relays_approve(
    relay: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the unique beginning or end of it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List a relay in the directory; its stamps count and its bytes are paid."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "relay_judge", {"relay": relay, "approve": True}, console)
    console.result(found, f"{found['id']} is approved")


@app.command("refuse", epilog="Example: farcast origin relays refuse 12D3KooW... --reason 'no place free'")
@guarded
def relays_refuse(
    relay: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the unique beginning or end of it.")],
    reason: Annotated[str, typer.Option(help="Why; its operator is told.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take a relay off the directory, or keep it off."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "relay_judge", {"relay": relay, "approve": False, "reason": reason}, console)
    console.result(found, f"{found['id']} is refused")
