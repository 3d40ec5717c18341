from __future__ import annotations

import io
import json

import pytest
import typer
from typer.testing import CliRunner

from farcast.node.console import Console, DebugOption, guarded
from farcast.protocol.errors import FarcastError, RemoteError, UsageError


def _run(error: BaseException, *arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()

    @app.command()
    @guarded
    def fail(*, debug: DebugOption = False) -> None:
        del debug
        raise error

    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("film.toml: unknown key"), 2),
        (RemoteError("the root is wrong", reason="wrong_root"), 1),
        (FarcastError("it broke"), 1),
        (FileNotFoundError(2, "No such file or directory", "/films/a.mp4"), 1),
    ],
)
def test_an_error_is_one_sentence_on_stderr_and_its_exit_code(error: Exception, code: int) -> None:
    status, out, err = _run(error)
    assert (status, out) == (code, "")
    assert err.startswith("farcast: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_missing_file_is_named() -> None:
    _, _, err = _run(FileNotFoundError(2, "No such file or directory", "/films/a.mp4"))
    assert err == "farcast: No such file or directory: /films/a.mp4\n"


def test_debug_shows_the_traceback_too() -> None:
    status, _, err = _run(UsageError("film.toml: unknown key"), "--debug")
    assert status == 2
    assert "Traceback" in err
    assert err.endswith("farcast: film.toml: unknown key\n")


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    assert _run(KeyboardInterrupt()) == (130, "", "")


def test_json_prints_the_result_alone() -> None:
    out = io.StringIO()
    console = Console(as_json=True, out=out)
    console.say("for people")
    console.table(["title"], [["bunny"]])
    with console.progress("publish") as report:
        report("encode", 1, 2)
    console.result({"title": "bunny"}, "published bunny")
    assert json.loads(out.getvalue()) == {"title": "bunny"}


def test_text_prints_lines_and_a_table_with_numbers_to_the_right() -> None:
    out = io.StringIO()
    console = Console(out=out)
    console.table(["title", "MB"], [["bunny", 5], ["sintel", 4_000]])
    console.result({"ignored": 1}, "2 titles")
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0].split() == ["title", "MB"]
    assert lines[1].endswith("   5")
    assert lines[2].endswith("4000")
    assert lines[-1] == "2 titles"


def test_progress_without_a_terminal_prints_a_few_plain_lines_per_stage() -> None:
    out = io.StringIO()
    with Console(out=out).progress("publish") as report:
        for stage in ("read", "encode"):
            for done in range(101):
                report(stage, done, 100)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "read" in line] == [f"publish: read {n}%" for n in (0, 25, 50, 75, 100)]
    assert len(lines) == 10


def test_a_warning_goes_to_stderr_in_either_form() -> None:
    err = io.StringIO()
    Console(as_json=True, err=err).warn("one key alone")
    assert err.getvalue() == "warning: one key alone\n"


def test_a_table_cuts_nothing_off_where_lines_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    Console(out=out).table(["relay", "standing"], [["12D3KooW" * 12, "approved"]])
    assert out.getvalue().splitlines()[1].split() == ["12D3KooW" * 12, "approved"]


def test_a_note_leaves_the_result_alone_on_stdout() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(out=out, err=err)
    console.note("An invite, good once:")
    console.result({"link": "farcast://"}, "farcast://")
    assert (out.getvalue(), err.getvalue()) == ("farcast://\n", "An invite, good once:\n")
    Console(as_json=True, out=out, err=err).note("silent")
    assert "silent" not in out.getvalue() + err.getvalue()
