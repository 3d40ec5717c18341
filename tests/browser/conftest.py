"""One house for all cases of a run, and what became of them in a few lines at its end."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.tests.browser.house import House
from farcast.tests.browser.matrix import MATRIX
from farcast.tests.browser.patchbay import PatchBay

CASE = "failover"
"""The property of a test report that carries its case's line."""


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """Bring everybody up, the node behind lines."""
    folder = tmp_path_factory.mktemp("house")
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    with PatchBay() as bay:
        try:
            house = House(troupe, folder, bay)
            house.assemble()
            yield house
        finally:
            troupe.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every case of the matrix that was run, and how many were not."""
    found = {outcome: _cases(terminalreporter, outcome) for outcome in ("passed", "skipped", "failed")}
    if not any(found.values()):
        return
    terminalreporter.section("failover")
    for lines in found.values():
        for line in lines:
            terminalreporter.write_line(line)
    run = len(found["passed"]) + len(found["failed"])
    terminalreporter.write_line(
        f"failover: {run} cases run, {len(found['skipped'])} skipped, {len(found['failed'])} failed; "
        f"the matrix has {len(MATRIX)}"
    )


def _cases(reporter: pytest.TerminalReporter, outcome: str) -> list[str]:
    reports = [report for report in reporter.stats.get(outcome, []) if isinstance(report, pytest.TestReport)]
    return [str(text) for report in reports for name, text in report.user_properties if name == CASE]
