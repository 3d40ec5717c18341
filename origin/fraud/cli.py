"""``farcast simulate``: what rules are worth, tried before anybody is paid by them."""

from __future__ import annotations

from typing import Annotated

import typer

from ...node.console import Console, DebugOption, JsonOption, guarded
from ...protocol.errors import LocalError, UsageError
from .catalogue import SCENARIOS, find
from .trial import Result, play

ALL = "all"
SEED_LIMIT = 2**63 - 1

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Try the rules of money in a simulated world.",
    epilog="Example: farcast simulate fraud --scenario click-farm",
)


@app.callback()
def simulate() -> None:
    """Try the rules of money in a simulated world."""


@app.command(epilog="Example: farcast simulate fraud --scenario click-farm --seed 7")
@guarded
def fraud(
    scenario: Annotated[
        str, typer.Option("--scenario", help="Which attack, by its name; `all` plays every one.")
    ] = "",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=SEED_LIMIT, help="The same seed gives the same world.")
    ] = 1,
    without_rule: Annotated[
        bool, typer.Option("--without-rule", help="Switch off the rule that stops this attack.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name the scenarios, one a line.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let attackers among honest viewers, judged by the real rules: what they gain, what it costs others."""
    del debug
    console = Console(as_json=as_json)
    if list_:
        known = [{"scenario": one.name, "story": one.story, "rule": one.rule} for one in SCENARIOS.values()]
        console.result(known, *SCENARIOS)
        return
    if not scenario:
        raise UsageError("name an attack with --scenario; --list names them, and `all` plays every one")
    if scenario != ALL:
        result = play(find(scenario), seed, with_rule=not without_rule)
        console.result(result.json(), *_lines(result))
        _check([result])
        return
    results: list[Result] = []
    with console.progress("simulate") as progress:
        for number, one in enumerate(SCENARIOS.values()):
            results.append(play(one, seed, with_rule=not without_rule))
            progress(one.name, number + 1, len(SCENARIOS))
    console.table(
        ["scenario", "spent", "received", "return", "bound", "held", "honest lost"],
        [
            (
                one.scenario, _money(one.spent_cents), _money(one.received_cents), _money(one.return_cents),
                _money(one.bound_cents), _money(one.held_cents), f"{_seconds(one.lost_ms)} s",
            )
            for one in results
        ],
    )  # fmt: skip
    console.result([one.json() for one in results])
    _check(results)


def _lines(result: Result) -> list[str]:
    """Return one result as a short table for people."""
    scenario = SCENARIOS[result.scenario]
    flags = ", ".join(f"{count} by {rule}" for rule, count in sorted(result.flags.items())) or "nobody"
    rows = {
        "rule": scenario.rule + ("" if result.with_rule else " (switched off in this run)"),
        "attacker": (
            f"spent {_money(result.spent_cents)}, received {_money(result.received_cents)}, "
            f"return {_money(result.return_cents)}"
        ),
        "loss bound": f"{_money(result.bound_cents)} with the rule",
        "honest": (
            f"{result.viewers} viewers watched {_seconds(result.viewed_ms)} s "
            f"and lost {_seconds(result.lost_ms)} s"
        ),
        "flagged": f"{flags}; {_money(result.held_cents)} held",
    }
    head = f"{result.scenario}, seed {result.seed}: {scenario.story}"
    return [head, *(f"  {name:<12}{text}" for name, text in rows.items())]


def _check(results: list[Result]) -> None:
    """Fail where a rule did not keep what it promises.

    Raises:
        LocalError: naming the first scenario over its bound.

    """
    for one in results:
        if one.with_rule and one.received_cents > one.bound_cents:
            message = f"{one.scenario}: the attacker received {_money(one.received_cents)}"
            raise LocalError(f"{message}, over the bound of {_money(one.bound_cents)}", reason="over_bound")


def _money(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02}"


def _seconds(ms: int) -> int:
    return -(-ms // 1_000)
