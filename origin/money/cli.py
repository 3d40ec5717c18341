"""``farcast origin rules``, ``holds`` and ``earnings``: what the treasurer looks at and decides."""

from __future__ import annotations

from typing import Annotated

import typer

from ...node.console import Console, DebugOption, HomeOption, JsonOption, guarded
from ..command import perform

HoldArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, or the unique beginning of it.")]
_SPANS = ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))
_MBIT_S = 125_000

holds = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    help="List what is held; note an appeal, release or deny.",
)


@guarded
def rules(home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show the rules that hold this month, since when, and what `[money]` changes from the next on."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "rules", {}, console)
    coming = found["next"]
    console.table(
        ["rule", found["month"], *([f"from {coming['since']}"] if coming else [])],
        [
            (name, _shown(name, value), *([_shown(name, coming["rules"][name])] if coming else []))
            for name, value in found["rules"].items()
        ],
    )
    lines = [f"Version {found['version']} since {found['since']}, SHA-256 {found['sha256']}"]
    if coming:
        lines.append(f"Version {coming['version']} holds from {coming['since']} on, not earlier")
    console.result(found, *lines)


@holds.callback(epilog="Example: farcast origin holds --month 2026-11")
@guarded
def list_holds(
    context: typer.Context,
    month: Annotated[str | None, typer.Option(help="YYYY-MM; every month by default.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List what is held, of whom, because of which rule; `appeal`, `release` and `deny` decide."""
    del debug
    if context.invoked_subcommand is not None:
        return
    console = Console(as_json=as_json)
    found = perform(home, "holds", {"month": month}, console)
    console.table(
        ["hold", "month", "account", "rule", "cents", "state", "appeal until", "the rule saw"],
        [
            (
                row["id"], row["month"], row["account"], row["rule"], row["cents"], row["state"],
                row["appeal_until"][:10], ", ".join(f"{k} {v}" for k, v in row["evidence"].items()),
            )
            for row in found["holds"]
        ],
    )  # fmt: skip
    waiting = found["waiting"]
    console.result(
        found,
        f"{waiting['holds']} wait for a decision ({waiting['cents']} cents), {waiting['appealed']} of "
        f"them appealed, {waiting['expired']} past their window",
    )


@holds.command("appeal", epilog="Example: farcast origin holds appeal 3f2a --note 'a hospital ward'")
@guarded
def appeal(
    hold: HoldArgument,
    note: Annotated[str, typer.Option(help="What is said against it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Note an appeal, within the window."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "hold_appeal", {"hold": hold, "note": note}, console)
    console.result(found, f"Hold {found['id']} is appealed; release it or deny it when it was looked at")


@holds.command("release", epilog="Example: farcast origin holds release 3f2a")
@guarded
def release(
    hold: HoldArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Pay what is held to those it was earned for."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "hold_release", {"hold": hold}, console)
    to = ", ".join(f"{row['payee']} {row['cents']}" for row in found["payees"])
    console.result(found, f"Hold {found['id']} is released, in cents: {to}")


@holds.command("deny", epilog="Example: farcast origin holds deny 3f2a")
@guarded
def deny(
    hold: HoldArgument, home: HomeOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Keep what is held for good, after an appeal or its window; nobody else gets it."""
    del debug
    console = Console(as_json=as_json)
    found = perform(home, "hold_deny", {"hold": hold}, console)
    console.result(
        found, f"Hold {found['id']} is denied; its {found['cents']} cents are carried and go to nobody"
    )


@guarded
def earnings(
    month: Annotated[
        str | None, typer.Option(help="YYYY-MM; this month so far and the newest settled one by default.")
    ] = None,
    for_payee: Annotated[str | None, typer.Option("--payee", help="This payee alone.")] = None,
    relay: Annotated[str | None, typer.Option(help="This relay alone, by its id.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what relays and payees earn: paid, held, not paid and why."""
    from ...node.earnings import earnings_lines

    del debug
    console = Console(as_json=as_json)
    arguments = {"month": month, "payee": for_payee, "relay": relay}
    found = perform(home, "earnings", arguments, console)
    console.result(found, *earnings_lines(found))


def add_to(app: typer.Typer) -> None:
    """Add these commands to ``farcast origin``."""
    app.command("rules", epilog="Example: farcast origin rules --json")(rules)
    app.add_typer(holds, name="holds")
    app.command("earnings", epilog="Example: farcast origin earnings --payee studio.one")(earnings)


def _shown(name: str, value: object) -> str:
    """Return a rule's value with a unit people read."""
    if isinstance(value, int) and name.endswith("_ms"):
        unit, word = next((span for span in _SPANS if value % span[0] == 0), (1, "ms"))
        return f"{value // unit} {word}"
    if isinstance(value, int) and name.endswith("_bytes_s"):
        return f"{value / _MBIT_S:g} Mbit/s"
    return f"{value / 100:g} %" if isinstance(value, int) and name.endswith("_points") else str(value)
