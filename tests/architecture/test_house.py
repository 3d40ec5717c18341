"""The house rules that no linter knows: floors, absolute imports, file lengths, top-level names."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("protocol", "mesh", "satellite", "node", "origin", "relay", "config")
TOP = {
    *ROOMS, "tests", "docs", "pyproject.toml", "requirements.lock", "README.md", "Makefile", "__init__.py",
    "__main__.py", "py.typed", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
}  # fmt: skip
SOURCES = sorted(
    path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "node_modules" not in path.parts
)
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager"}


def test_the_floors_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_inside_the_house_are_relative(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    ]
    assert not [name for name in names if name.split(".")[0] == "farcast"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_long_file_gives_its_reason(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert docstring, "every module says what it is"
    if text.count("\n") > 400:
        assert re.search(r"[Oo]ver 400 lines", docstring), "over 400 lines needs a reason in the docstring"


def test_most_files_are_short() -> None:
    lengths = [path.read_text().count("\n") for path in SOURCES]
    assert statistics.median(lengths) <= 150


def test_modules_are_nouns() -> None:
    assert not [path for path in SOURCES if path.stem in FORBIDDEN_NAMES]


def test_the_top_level_holds_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("not a git checkout: what is tracked is unknown")
    top = {line.split("/")[0] for line in listed.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP
