"""``farcast origin account``: whose viewing is counted; and ``invite``, the link a box comes by."""

from __future__ import annotations

from typing import Annotated

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

app = typer.Typer()
account = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Accounts whose viewing is counted.")


@app.command(epilog="Example: farcast origin invite --relay")
@guarded
def invite(
    relay: Annotated[
        bool, typer.Option("--relay", help="For a relay, approved beforehand; works once.")
    ] = False,
    for_account: Annotated[
        str | None, typer.Option("--account", help="For one more device of this account; works once.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print a link that makes a box trust this origin."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "invite", {"relay": relay, "account": for_account}, console)
    if found["valid_days"]:
        console.note(f"An invite for a {found['kind']}, good once and for {found['valid_days']} days:")
    if found["web"]:
        console.note(f"In a browser, instead: {found['web']}")
    console.result(found, found["link"])


@account.command("add", epilog="Example: farcast origin account add alice")
@guarded
def account_add(
    name: Annotated[str, typer.Argument(help="What you call the account; nobody else sees it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Add an account and print the invite of its first device."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "account_add", {"name": name}, console)
    console.note(
        f"Added {name}. An invite for its first device, good once and for {found['valid_days']} days:"
    )
    if found["web"]:
        console.note(f"In a browser, instead: {found['web']}")
    console.result(found, found["link"])


@account.command("revoke", epilog="Example: farcast origin account revoke alice")
@guarded
def account_revoke(
    name: Annotated[str, typer.Argument(help="The account.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End an account: no tickets, no keys; what it viewed until now still counts."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "account_revoke", {"name": name}, console)
    console.result(found, f"{name} gets no tickets and no keys, and no time counts from now on")


@account.command("erase", epilog="Example: farcast origin account erase alice")
@guarded
def account_erase(
    name: Annotated[str, typer.Argument(help="The account.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Forget whose account it is; the books keep its pseudonym alone."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "account_erase", {"name": name}, console)
    console.result(found, f"Nothing here says any more who {name} was")


@account.command("list", epilog="Example: farcast origin account list --json")
@guarded
def account_list(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the accounts."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "account_list", {}, console)
    console.table(
        ["account", "devices", "revoked from"],
        [
            (row["account"] or "(erased)", row["devices"], row["revoked_from"] or "")
            for row in found["accounts"]
        ],
    )
    console.result(
        found, *([] if found["accounts"] else ["No accounts yet: farcast origin account add NAME"])
    )
