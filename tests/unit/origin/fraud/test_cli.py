from __future__ import annotations

import json

from typer.testing import CliRunner

from farcast.origin.fraud import cli
from farcast.origin.fraud.catalogue import SCENARIOS


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, ["fraud", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_list_names_one_scenario_a_line() -> None:
    code, out, _ = run("--list")
    assert (code, out.split()) == (0, list(SCENARIOS))
    assert [one["scenario"] for one in json.loads(run("--list", "--json")[1])] == list(SCENARIOS)


def test_a_scenario_prints_the_attackers_return_and_the_bound() -> None:
    code, out, _ = run("--scenario", "gap-seam", "--seed", "3")
    assert code == 0
    assert "spent 10.00, received 0.00, return -10.00" in out
    assert "lost 0 s" in out


def test_a_run_without_its_rule_says_so() -> None:
    code, out, _ = run("--scenario", "gap-seam", "--without-rule")
    assert (code, "switched off" in out) == (0, True)
    printed = json.loads(run("--scenario", "gap-seam", "--without-rule", "--json")[1])
    assert printed["with_rule"] is False
    assert printed["attacker"]["return_cents"] > 0


def test_wrong_use_is_one_sentence() -> None:
    sentence = "farcast: name an attack with --scenario; --list names them, and `all` plays every one\n"
    assert run() == (2, "", sentence)
    code, out, error = run("--scenario", "robbery")
    assert (code, out) == (2, "")
    assert "robbery" in error
