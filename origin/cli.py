"""``farcast origin``: the publisher's and treasurer's commands.

Over 400 lines because every command states its options, help and example where it is defined.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..protocol.errors import UsageError
from .command import origin_home as _home
from .command import perform as _perform
from .money import cli as money
from .payout.cli import app as payout

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,  # `farcast --install-completion` completes these commands too
    rich_markup_mode=None,
    help="Publish films, know who watches them, and pay for viewed time.",
    epilog="Start with: farcast origin init --name 'My films' --endpoint films.example:7433",
)
account = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Accounts whose viewing is counted.")
payee = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who is paid.")
relays = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="List relays; approve or refuse one."
)
app.add_typer(account, name="account")
app.add_typer(payee, name="payee")
app.add_typer(relays, name="relays")
app.add_typer(payout, name="payout")

DEFAULT_PORT = 7433
PASSPHRASE_LIMIT_BYTES = 4_096

PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line is the root key's passphrase."),
]
BackupPassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line is the backup's passphrase."),
]
TitleArgument = Annotated[str, typer.Argument(help="The title's id, as `farcast origin list` shows it.")]
MonthOption = Annotated[str | None, typer.Option(help="YYYY-MM; the month before this one by default.")]
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
_ACCESS = {"open": "open to everybody", "ticket": "encrypted; plays with a ticket"}


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
    from .keys import init as make
    from .office import parse_cdn, parse_endpoint

    console, path = Console(as_json=as_json), _home(home)
    endpoints = [parse_endpoint(text) for text in endpoint or [_guessed_endpoint()]]
    passphrase = _passphrase(passphrase_file)
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


@app.command(epilog="Example: farcast origin run --home /var/lib/farcast")
@guarded
def run(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Run the origin: catalog, blocks, tickets, relays, pulses, satellite uplink; until Ctrl-C."""
    del debug
    from ..node.duty import do_duty
    from .run import OriginBox

    do_duty(_home(home), "origin", OriginBox, Console(as_json=as_json))


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
    found = _perform(home, "invite", {"relay": relay, "account": for_account}, console)
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
    found = _perform(home, "account_add", {"name": name}, console)
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
    found = _perform(home, "account_revoke", {"name": name}, console)
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
    found = _perform(home, "account_erase", {"name": name}, console)
    console.result(found, f"Nothing here says any more who {name} was")


@account.command("list", epilog="Example: farcast origin account list --json")
@guarded
def account_list(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the accounts."""
    del debug
    console = Console(as_json=as_json)
    found = _perform(home, "account_list", {}, console)
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


@payee.command(
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


@payee.command("set", epilog="Example: farcast origin payee set ada --iban 'DE89...'")
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


@payee.command("list", epilog="Example: farcast origin payee list")
@guarded
def payee_list(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List who is paid."""
    del debug
    console = Console(as_json=as_json)
    found = _perform(home, "payee_list", {}, console)
    console.table(
        ["payee", "name", "method", "to", "region", ""],
        [
            (row["id"], row["name"], row["method"], row["iban"] or row["account"], row["region"], _kept(row))
            for row in found["payees"]
        ],
    )
    console.result(found, *([] if found["payees"] else ["Nobody yet: farcast origin payee add ID"]))


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
    found = _perform(home, "announce", {"endpoints": endpoint or None, "cdn": cdn or None}, console)
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
    passphrase = _passphrase(passphrase_file)
    if passphrase is None:
        raise UsageError("the root key is under a passphrase: name its file with --passphrase-file")
    found = _perform(home, "renew", {"passphrase": passphrase}, console)
    console.result(found, f"root.json is now version {found['version']} and holds until {found['expires']}")


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
    found = _perform(home, "publish", arguments, console, label=f"publish {media.name}")
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
    found = _perform(home, "release", {"title": title}, console, label=f"release {title}")
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
    found = _perform(home, "list", {}, console)
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


@relays.callback(epilog="Example: farcast origin relays")
@guarded
def relays_list(
    context: typer.Context, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List the relays and how they stand; `approve ID` and `refuse ID` decide."""
    del debug
    if context.invoked_subcommand is not None:
        return
    console = Console(as_json=as_json)
    found = _perform(home, "relays", {}, console)
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


@relays.command("approve", epilog="Example: farcast origin relays approve 12D3KooW...")
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
    found = _perform(home, "relay_judge", {"relay": relay, "approve": True}, console)
    console.result(found, f"{found['id']} is approved")


@relays.command("refuse", epilog="Example: farcast origin relays refuse 12D3KooW... --reason 'no place free'")
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
    found = _perform(home, "relay_judge", {"relay": relay, "approve": False, "reason": reason}, console)
    console.result(found, f"{found['id']} is refused")


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
    found = _perform(home, "book", arguments, console)
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
    found = _perform(home, "ledger", {"account": account, "after": after}, console)
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
    found = _perform(home, "settle", arguments, console)
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
    found = _perform(home, "report", {"month": month}, console)
    root = _home(home) / "tuf" / "root.json"
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
    found = _perform(home, "evidence", {"folder": str(folder.absolute())}, console)
    console.table(
        ["what", "account", "day", "pulse", "file"],
        [(row["code"], row["account"], row["day"], row["seq"], row["file"] or "-") for row in found["cases"]],
    )
    files = sum(bool(row["file"]) for row in found["cases"])
    root = _home(home) / "tuf" / "root.json"
    console.result(
        found,
        f"{len(found['cases'])} cases, {files} files in {found['folder']}",
        *([f"Anybody checks one with: farcast verify FILE --root {root}"] if files else []),
    )


@app.command(
    epilog="Example: farcast origin backup /mnt/stick/films.backup --passphrase-file /root/passphrase"
)
@guarded
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; one that is there is replaced.")],
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Take the films too; else they are published again.")
    ] = False,
    passphrase_file: BackupPassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write everything this origin needs to one encrypted file, running or not."""
    del debug
    from .keys import new_passphrase

    console = Console(as_json=as_json)
    given = _passphrase(passphrase_file)
    passphrase = given or new_passphrase()
    arguments = {"file": str(file.absolute()), "passphrase": passphrase, "blocks": blocks}
    found = _perform(home, "backup", arguments, console, label=f"backup {file.name}")
    found["passphrase"] = None if given else passphrase
    console.result(
        found,
        f"Wrote {found['file']}: {found['bytes'] / 1e6:.1f} MB, {found['files']} files"
        + (", films included" if blocks else ", without the films"),
        *([] if given else [f"  passphrase  {passphrase}  (it is not shown again)"]),
        f"Bring it back with: farcast origin restore {found['file']} --home DIR",
    )


@app.command(
    epilog="Example: farcast origin restore films.backup --home /var/lib/farcast --passphrase-file /root/pass"
)
@guarded
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `farcast origin backup` wrote.")],
    passphrase_file: BackupPassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an empty home the origin that was backed up; all of it is checked before it moves in."""
    del debug
    from .restore import restore as bring_back

    console, path = Console(as_json=as_json), _home(home)
    passphrase = _passphrase(passphrase_file)
    if passphrase is None:
        passphrase = typer.prompt("passphrase of the backup", hide_input=True, err=True).strip()
    with console.progress(f"restore {file.name}") as report_progress:
        ledger = os.environ.get("FARCAST_MONEY_LEDGER", "")
        found = bring_back(file, path, passphrase, report_progress, ledger=ledger)
    if found["ledger"] == "postgresql":
        console.warn("the ledger is in PostgreSQL: name it as [money] ledger before you start this origin")
    settled = max(found["settled"], default=None)
    console.result(
        {
            "home": str(path),
            "name": found["name"],
            "peer_id": found["peer_id"],
            "made": found["made"],
            "catalog_entries": found["catalog"]["size"],
            "intake_entries": found["intake_entries"],
            "settled": settled,
            "ledger": found["ledger"],
            "blocks": found["blocks"],
        },
        f"{found['name']} is back in {path}, as it was at {found['made']}",
        f"  catalog  {found['catalog']['size']} entries",
        f"  pulses   {found['intake_entries']} entries in the intake log",
        f"  settled  {settled or 'nothing yet'}",
        *([] if found["blocks"] else ["Publish the films again: their blocks were not in the backup."]),
        "Next: farcast origin run; never run the old one and this one at once",
    )


@app.command(epilog="Example: farcast origin status")
@guarded
def status(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say how the origin stands, worst first."""
    from .airing import described as on_air
    from .cdn.watch import described

    del debug
    console = Console(as_json=as_json)
    found = _perform(home, "status", {"look": True}, console)
    running = "running" if found["running"] else "not running (farcast origin run)"
    console.result(
        found,
        *(f"! {warning}" for warning in found["warnings"]),
        f"{found['name']}: {running}",
        f"  key       {found['peer_id']}",
        f"  at        {', '.join(found['endpoints']) or 'nowhere yet'}",
        *(f"  cdn       {described(one)}" for one in found["edges"]),
        f"  titles    {found['titles']}",
        f"  accounts  {found['accounts']}",
        f"  relays    {found['relays']['approved']} approved, {found['relays']['pending']} waiting",
        *([f"  on air    {line}" for line in on_air(found["air"])] if found["air"] else []),
        *([f"  holds     {found['holds']['holds']} wait for a decision"] if found["holds"] else []),
        f"  root      version {found['root']['version']}, {found['root']['threshold']}, "
        f"until {found['root']['expires']}",
    )


money.add_to(app, payee)


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
    return _perform(home, action, {"payee": payee_id, "terms": wishes}, Console(as_json=as_json))


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


def _withdraw(home: Path | None, action: str, title: str, sentence: str, console: Console) -> None:
    """Do an action that takes a title from the tiers, and show how long each of them took."""
    found = _perform(home, action, {"title": title}, console, label=f"{action} {title}")
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


def _passphrase(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            lines = file.read(PASSPHRASE_LIMIT_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the passphrase file {path} cannot be read: {error}") from error
    if not lines or not lines[0].strip():
        raise UsageError(f"the passphrase file {path} is empty")
    return lines[0].strip()


def _guessed_endpoint() -> str:
    """Return this machine's own address towards the Internet; asks the routing table, sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): connecting a datagram socket is silent
            host = str(probe.getsockname()[0])
        except OSError:
            host = "127.0.0.1"
    return f"{host}:{DEFAULT_PORT}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
