"""``farcast origin payee``: who is paid, how, and whose box may see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who is paid.")

PayeeName = Annotated[str | None, typer.Option("--name", help="Who that is, as their bank knows them.")]
PayeeMethod = Annotated[str | None, typer.Option("--method", help="How they are paid: sepa, http or manual.")]
PayeeRegion = Annotated[
    str | None, typer.Option("--region", help="Where they are taxed, an ISO 3166 code like DE or US-CA.")
]
PayeeIban = Annotated[str | None, typer.Option("--iban", help="Their bank account; lists show it masked.")]
PayeeBic = Annotated[str | None, typer.Option("--bic", help="Its bank's code; seldom needed.")]
PayeeAccount = Annotated[
    str | None, typer.Option("--account", help="What the payment provider of method http calls them.")
]
PayeePoints = Annotated[
    int | None,
    typer.Option(
        "--withholding", help="Basis points withheld, before what [money] withholding says; -1: as it says."
    ),
]
PayeeBlock = Annotated[
    str | None, typer.Option("--block", help="Why nothing is paid out for now; empty: it is again.")
]


@app.command(
    "add",
    epilog="Example: farcast origin payee add ada --name 'Ada L.' --method sepa --iban 'DE89...' --region DE",
)
@guarded
def payee_add(
    payee_id: Annotated[str, typer.Argument(metavar="ID", help="Small letters, digits, dots and dashes.")],
    name: PayeeName = None,
    method: PayeeMethod = None,
    region: PayeeRegion = None,
    iban: PayeeIban = None,
    bic: PayeeBic = None,
    account_id: PayeeAccount = None,
    withholding: PayeePoints = None,
    block: PayeeBlock = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Add somebody to be paid; again with other words corrects them."""
    del debug
    wishes = _wishes(name, method, region, iban, bic, account_id, withholding, block)
    _show_payee(_put_payee(home, "payee_add", payee_id, wishes, as_json), as_json)


@app.command("set", epilog="Example: farcast origin payee set ada --iban 'DE89...'")
@guarded
def payee_set(
    payee_id: Annotated[str, typer.Argument(metavar="ID", help="The payee.")],
    name: PayeeName = None,
    method: PayeeMethod = None,
    region: PayeeRegion = None,
    iban: PayeeIban = None,
    bic: PayeeBic = None,
    account_id: PayeeAccount = None,
    withholding: PayeePoints = None,
    block: PayeeBlock = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Change how somebody is paid; what is not named stays, an empty text takes it away."""
    del debug
    wishes = _wishes(name, method, region, iban, bic, account_id, withholding, block)
    _show_payee(_put_payee(home, "payee_set", payee_id, wishes, as_json), as_json)


@app.command("list", epilog="Example: farcast origin payee list")
@guarded
def payee_list(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List who is paid."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payee_list", {}, console)
    console.table(
        ["payee", "name", "method", "to", "region", ""],
        [
            (row["id"], row["name"], row["method"], row["iban"] or row["account"], row["region"], _kept(row))
            for row in found["payees"]
        ],
    )
    console.result(found, *([] if found["payees"] else ["Nobody yet: farcast origin payee add ID"]))


@app.command("key", epilog="Example: farcast origin payee key studio.one 12D3KooW...")
@guarded
def payee_key(
    payee_id: Annotated[str, typer.Argument(metavar="PAYEE", help="Whose earnings.")],
    key: Annotated[str, typer.Argument(metavar="ID", help="The box's id: `farcast key show` there.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a payee's own box ask what the payee earns (`farcast earnings`)."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "payee_key", {"payee": payee_id, "key": key}, console)
    console.result(found, f"{key} may see what {payee_id} earns")


def _wishes(
    name: str | None, method: str | None, region: str | None, iban: str | None, bic: str | None,
    account_id: str | None, withholding: int | None, block: str | None,
) -> dict[str, object]:  # fmt: skip
    """Return what the options name of a payee's terms."""
    named = {
        "name": name, "method": method, "region": region, "iban": iban, "bic": bic, "account": account_id,
        "points": withholding, "blocked": block,
    }  # fmt: skip
    return {key: value for key, value in named.items() if value is not None}


def _put_payee(
    home: Path | None, action: str, payee_id: str, wishes: dict[str, object], as_json: bool
) -> dict[str, Any]:
    return perform(home, action, {"payee": payee_id, "terms": wishes}, Console(as_json=as_json))


def _show_payee(found: dict[str, Any], as_json: bool) -> None:
    to = found["iban"] or found["account"]
    how = (
        f"is paid by {found['method']}{f' to {to}' if to else ''}" if found["method"] else "can be owed money"
    )
    hint = "" if found["method"] else f"; to pay it: farcast origin payee set {found['payee']} --method sepa"
    kept = f"; {_kept(found)}" if _kept(found) else ""
    Console(as_json=as_json).result(found, f"{found['payee']} {how}{hint}{kept}")


def _kept(row: dict[str, Any]) -> str:
    """Say what is kept from a payee: everything, or their own share of tax."""
    if row["blocked"]:
        return f"blocked: {row['blocked']}"
    points = row["withholding_basis_points"]
    return "" if points is None else f"{points / 100:g} % withheld"
