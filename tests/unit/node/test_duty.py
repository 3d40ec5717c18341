from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farcast.node.duty import Plain, main


def test_a_duty_that_cannot_begin_is_one_sentence_and_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["farcast.relay.standalone:relay_of", "relay", str(tmp_path / "none"), "text"])
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert told.err.startswith("farcast: ")
    assert told.err.count("\n") == 1


def test_a_bug_is_a_sentence_and_with_debug_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["farcast.relay.standalone:nothing", "relay", str(tmp_path), "text"]
    assert main(arguments) == 1
    assert "a bug in Farcast (AttributeError" in capsys.readouterr().err
    monkeypatch.setenv("FARCAST_DEBUG", "1")
    assert main(arguments) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_greeting_is_one_json_value_or_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Plain(as_json=True).result({"a": 1}, "line")
    Plain(as_json=False).result({"a": 1}, "one", "two")
    assert capsys.readouterr().out == '{\n  "a": 1\n}\none\ntwo\n'


@pytest.mark.parametrize(
    ("duty", "beside"),
    [("farcast.relay.standalone, farcast.relay.service", {"zeroconf"}), ("farcast.node.viewer", set[str]())],
    ids=["relay", "node"],
)
def test_a_box_imports_nothing_that_only_commands_want(duty: str, beside: set[str]) -> None:
    unwanted = {"typer", "rich", "jinja2", "pydantic_core", "sqlite_utils", "urllib3"} | beside
    script = f"import sys, farcast.node.duty, {duty}\nprint(*sorted({unwanted} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
