"""One whole Farcast for all system tests: ``farcast demo --serve`` as a person starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from farcast.tests.system.served import Served

UP_TIMEOUT_S = 110.0
STOP_TIMEOUT_S = 10.0
ROOT = Path(__file__).resolve().parents[2]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """Serve a demo for the whole run; at the end it must go by SIGINT within 10 s and leave nothing."""
    folder = tmp_path_factory.mktemp("served")
    report = tmp_path_factory.mktemp("report") / "demo.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FARCAST_")}
    environment |= {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT / ".src")}
    log = report.with_name("demo.log")
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "farcast", "demo", "--serve", "--json", str(report)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not report.exists():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        everything = Served(json.loads(report.read_text()), folder)
        assert all(map(_alive, everything.pids))
        yield everything
        demo.send_signal(signal.SIGINT)
        assert demo.wait(STOP_TIMEOUT_S) == 0, log.read_text()
        assert not list(filter(_alive, everything.pids))
        assert not list(folder.iterdir())
    finally:
        if demo.poll() is None:
            demo.terminate()  # it takes its own processes along
            demo.wait(STOP_TIMEOUT_S)
