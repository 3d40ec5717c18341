"""``farcast origin``: the publisher's and treasurer's commands; each noun's are in its own room."""

from __future__ import annotations

import typer

from ..node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from .account import cli as account
from .backup import cli as backup
from .command import origin_home, perform
from .money import bookscli, monthcli
from .money import cli as money
from .payee import cli as payee
from .payout import cli as payout
from .relays import cli as relays
from .title import cli as title
from .trust import cli as trust

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,  # `farcast --install-completion` completes these commands too
    rich_markup_mode=None,
    help="Publish films, know who watches them, and pay for viewed time.",
    epilog="Start with: farcast origin init --name 'My films' --endpoint films.example:7433",
)


@app.command(epilog="Example: farcast origin run --home /var/lib/farcast")
@guarded
def run(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Run the origin: catalog, blocks, tickets, relays, pulses, satellite uplink; until Ctrl-C."""
    del debug
    from ..node.duty import do_duty
    from .run import OriginBox

    do_duty(origin_home(home), "origin", OriginBox, Console(as_json=as_json))


@app.command(epilog="Example: farcast origin status")
@guarded
def status(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say how the origin stands, worst first."""
    from ..node.radio import heard
    from .airing import described as on_air
    from .cdn.watch import described

    del debug
    console = Console(as_json=as_json)
    found = perform(home, "status", {"look": True}, console)
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
        *([f"  radio     {line}" for line in heard(found["radio"])] if found["radio"] else []),
        *([f"  holds     {found['holds']['holds']} wait for a decision"] if found["holds"] else []),
        f"  root      version {found['root']['version']}, {found['root']['threshold']}, "
        f"until {found['root']['expires']}",
    )


for room in (trust, account, title, bookscli, monthcli, backup):
    app.add_typer(room.app)  # their commands are this app's own
money.add_to(app)
app.add_typer(account.account, name="account")
app.add_typer(payee.app, name="payee")
app.add_typer(relays.app, name="relays")
app.add_typer(payout.app, name="payout")
