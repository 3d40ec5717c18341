from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
import typer.main

from farcast.node import cli as node
from farcast.node.console import start
from farcast.origin import cli as origin
from farcast.relay import cli as relay

APPS = {"farcast": node.app, "farcast origin": origin.app, "farcast relay": relay.app}


def commands() -> Iterator[tuple[str, typer.Typer]]:
    """Yield every command line there is, without options, and the app it belongs to."""

    def walk(line: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - typer exports no type for it
        below: dict[str, Any] = getattr(command, "commands", {})
        for name, inner in below.items():
            yield from walk(f"{line} {name}", inner)
        if not below or command.invoke_without_command:
            yield line

    for name, app in APPS.items():
        for line in walk(name, typer.main.get_command(app)):
            yield line, app


@pytest.mark.parametrize(("line", "app"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_every_commands_help_has_a_sentence_and_an_example(
    line: str, app: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    name = next(name for name in reversed(APPS) if line.startswith(name))
    assert start(app, [*line.removeprefix(name).split(), "--help"], name) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Usage: {line} " in out
    assert f"Example: {line}" in out or f"$({line}" in out
    assert "--json" in out
    sentence = out.partition("Usage: ")[2].partition("]")[2]
    assert "." in sentence


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["frob"], "farcast: no such command 'frob'; see `farcast --help`\n"),
        (["play"], "farcast: missing argument 'title'; see `farcast play --help`\n"),
        (["play", "--urll"], "farcast: no such option: --urll"),
        (["demo", "--speed", "9"], "farcast: invalid value for '--speed'"),
    ],
)
def test_wrong_use_is_one_sentence_that_points_to_help(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(node.app, line, "farcast") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == 1
    assert "--help`" in err


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(origin.app, ["account"], "farcast origin") == 2
    assert "farcast origin account" in capsys.readouterr().err


def test_a_commands_own_exit_code_is_kept() -> None:
    app = typer.Typer()

    @app.command()
    def leave() -> None:
        raise typer.Exit(3)

    assert start(app, [], "leave") == 3


def test_an_aborted_command_ends_with_1() -> None:
    app = typer.Typer()

    @app.command()
    def leave() -> None:
        raise typer.Abort

    assert start(app, [], "leave") == 1
