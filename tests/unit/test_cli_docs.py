from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner

import farcast
from farcast.node import cli as node
from farcast.node.demo.film import draw_film
from farcast.node.home import Home
from farcast.node.settings import Settings
from farcast.node.viewer import Viewer
from farcast.origin import cli as origin
from farcast.origin.fraud import cli as simulate
from farcast.relay import cli as relay

APPS: dict[str, typer.Typer] = {"farcast": node.app, "farcast relay": relay.app, "farcast origin": origin.app}
APPS["farcast simulate"] = simulate.app
NO_JSON = {"farcast demo"}  # there --json names the file to write
PAGE = (Path(farcast.__path__[0]) / "docs" / "cli.md").read_text("utf-8")


def _commands() -> Iterator[tuple[str, Any]]:
    waiting: list[tuple[str, Any]] = [(name, typer.main.get_command(app)) for name, app in APPS.items()]
    while waiting:
        name, command = waiting.pop()
        inside: dict[str, Any] = getattr(command, "commands", {})
        waiting += [(f"{name} {word}", child) for word, child in inside.items()]
        if not inside or (command.invoke_without_command and name not in APPS):
            yield name, command


COMMANDS = dict(sorted(_commands()))


def _app_of(name: str) -> tuple[typer.Typer, list[str]]:
    """Return the app a command belongs to and its words there."""
    prefix = max((prefix for prefix in APPS if name.startswith(prefix)), key=len)
    return APPS[prefix], name.removeprefix(prefix).split()


def _samples(heading: str) -> list[Any]:
    """Return the JSON values that the page shows below the heading of ``heading``'s command."""
    section = next(
        part for part in PAGE.split("\n### ")[1:] if re.search(rf"`{heading}\b", part.splitlines()[0])
    )
    found: list[Any] = []
    for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
        text = block.strip()
        while text:
            value, end = json.JSONDecoder().raw_decode(text)
            found.append(value)
            text = text[end:].strip()
    return found


def _differences(shown: Any, printed: Any, where: str = "") -> list[str]:  # noqa: ANN401 - JSON
    """Say where the printed JSON has other fields or kinds of values than the page shows."""
    kind = _kind(shown)
    if _kind(printed) != kind:
        return [] if None in (shown, printed) else [f"{where} is shown as {shown!r}, printed as {printed!r}"]
    if kind == "dict":
        found = [f"{where}.{name} is on one side only" for name in set(shown) ^ set(printed)]
        for name in set(shown) & set(printed):
            found += _differences(shown[name], printed[name], f"{where}.{name}")
        return found
    return _differences(shown[0], printed[0], f"{where}[]") if kind == "list" and shown and printed else []


def _kind(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_on_the_page_with_an_example(name: str) -> None:
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", PAGE.replace("|", " "))
    app, words = _app_of(name)
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    example = " ".join(shown.output.partition("Example: ")[2].split())
    assert re.search(rf"(^|\(){name}( |$)", example), f"{name} --help has no example of it"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_debug_and_a_home(name: str) -> None:
    flags = {option: parameter for parameter in COMMANDS[name].params for option in parameter.opts}
    assert flags["--json"].is_flag is (name not in NO_JSON)
    assert "--debug" in flags
    homeless = {"farcast demo", "farcast cid", "farcast simulate fraud"}
    assert ("--home" in flags) is (name not in homeless)


def test_the_page_has_no_command_that_does_not_exist() -> None:
    headings = [line for line in PAGE.splitlines() if line.startswith("### ")]
    named = [name for line in headings for name in re.findall(r"`(farcast [a-z ]+[a-z])", line)]
    assert len(named) > 20
    groups = {name.rpartition(" ")[0] for name in COMMANDS}
    for name in named:
        action = name.rpartition(" ")[0]  # `farcast pulses show`: show is an argument
        assert name in COMMANDS or action in COMMANDS or action in groups, name


class _Scripts:
    """Runs commands with ``--json`` in one home and compares what they print with the page."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, name: str, *arguments: str, at: int = 0, heading: str = "") -> Any:  # noqa: ANN401 - JSON
        app, words = _app_of(name)
        done = CliRunner().invoke(app, [*words, *arguments, "--json"], env={"FARCAST_HOME": str(self.home)})
        assert done.exit_code == 0, done.stderr
        printed = json.loads(done.stdout)
        assert _differences(_samples(heading or name)[at], printed) == [], name
        return printed


@pytest.fixture
def scripts(tmp_path: Path) -> _Scripts:
    return _Scripts(tmp_path / "home")


def test_what_an_origins_commands_print_is_what_the_page_shows(scripts: _Scripts, tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    draw_film(film, 2)
    made = scripts("farcast origin init", "--endpoint", "films.example:7433")
    secret = tmp_path / "passphrase"
    secret.write_text(made["passphrase"])
    scripts("farcast origin renew", "--passphrase-file", str(secret))
    scripts("farcast origin payee add", "ada")
    scripts("farcast origin payee list", at=1, heading="farcast origin payee add")
    scripts("farcast origin publish", str(film), "--dry-run", at=1)
    scripts("farcast origin publish", str(film), "--preset", "ultrafast")
    scripts("farcast origin list")
    for at, action in enumerate(("retire", "deny", "purge")):
        scripts(f"farcast origin {action}", "film", at=at)
    for at, action in enumerate(("add", "list", "revoke", "erase")):
        name = () if action == "list" else ("alice",)
        scripts(f"farcast origin account {action}", *name, at=at, heading="farcast origin account add")
    scripts("farcast origin invite")
    scripts("farcast origin announce")
    scripts("farcast origin relays")
    scripts("farcast origin status")
    file = str(tmp_path / "films.backup")
    found = scripts("farcast origin backup", file)
    secret.write_text(found["passphrase"])
    scripts.home = tmp_path / "restored"
    scripts("farcast origin restore", file, "--passphrase-file", str(secret))


def test_what_the_moneys_commands_print_is_what_the_page_shows(scripts: _Scripts) -> None:
    made = scripts("farcast origin init", "--endpoint", "films.example:7433")
    refused = CliRunner().invoke(origin.app, ["settle"], env={"FARCAST_HOME": str(scripts.home)})
    month = refused.stderr.partition("--month ")[2][:7]
    scripts("farcast origin book", "revenue", "1000", "--month", month)
    scripts("farcast origin settle")
    scripts("farcast origin ledger")
    scripts("farcast origin ledger", "--account", "assets:received", at=1)
    scripts("farcast origin rules")
    scripts("farcast origin holds")
    scripts("farcast origin earnings")
    scripts("farcast origin payee add", "ada", at=0)
    key = scripts("farcast key show", at=1, heading="farcast cid")["peer_id"]
    scripts("farcast origin payee key", "ada", key)
    folder = scripts("farcast origin report")["folder"]
    assert scripts("farcast verify", folder, "--root", made["root"])["ok"]
    scripts("farcast origin evidence", str(scripts.home / "cases"))
    (Path(folder) / "relays.csv").write_text("changed")
    tampered = CliRunner().invoke(node.app, ["verify", folder, "--root", made["root"], "--json"])
    assert tampered.exit_code == 1
    assert _differences(_samples("farcast verify")[0], json.loads(tampered.stdout)) == []


def test_what_the_simulators_command_prints_is_what_the_page_shows(scripts: _Scripts) -> None:
    scripts("farcast simulate fraud", "--scenario", "greedy-farm")
    scripts("farcast simulate fraud", "--list", at=1)


async def test_what_a_nodes_commands_print_is_what_the_page_shows(scripts: _Scripts, tmp_path: Path) -> None:
    root = scripts("farcast origin init", "--endpoint", "127.0.0.1:9", "--name", "Acme")["root"]
    scripts.home = tmp_path / "node"
    await asyncio.to_thread(scripts, "farcast join", root)  # joining has an event loop of its own
    heading = "farcast cid"
    scripts("farcast cid", root, heading=heading)
    scripts("farcast key", "show", at=1, heading=heading)
    scripts("farcast config", "show", at=2, heading=heading)
    scripts("farcast config", "check", at=3, heading=heading)
    settings = Settings.load(scripts.home, {"FARCAST_SATELLITE_ENABLED": "false"})
    viewer = Viewer(Home.open(scripts.home, "node"), settings)
    try:
        status = await asyncio.to_thread(viewer.desk.status)
        assert _differences(_samples("farcast status")[0], status) == []
        sent = await asyncio.to_thread(viewer.desk.sent)
        shown = viewer.desk.pulses() | {"sessions": viewer.desk.sessions(), "sent": sent}
        assert _differences(_samples("farcast pulses")[0], shown) == []
    finally:
        viewer.box.abandon()
