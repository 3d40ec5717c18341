"""A wheel that is made where npm is not says what it lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOOK = Path(__file__).parents[2] / ".ci" / "wheel.py"
PROJECT = """
[project]
name = "bare"
version = "1"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
bypass-selection = true
[tool.hatch.build.targets.wheel.hooks.custom]
path = "wheel.py"
"""


def test_a_wheel_without_what_npm_brings_says_so_and_is_made(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    shutil.copy(HOOK, tmp_path)
    made = tmp_path / "node" / "web" / "small"

    def build() -> str:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = build()
    assert "node/page/vendor/hls.min.js is missing: the pages use the browser's own HLS" in said
    assert "node/web/small/made is missing" in said
    made.mkdir(parents=True)
    (made / "made").touch()
    assert "node/web/small" not in build()
    assert list(tmp_path.glob("dist/*.whl"))
