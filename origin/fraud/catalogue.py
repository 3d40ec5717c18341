"""The catalogue: every scenario by its name."""

from __future__ import annotations

from ...protocol.errors import UsageError
from . import caps, carriers, clocks, copies, crowds
from .scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for family in (copies, clocks, caps, crowds, carriers)
    for scenario in family.SCENARIOS
}


def find(name: str) -> Scenario:
    """Return a scenario by name; raises ``UsageError`` for one that does not exist."""
    if name not in SCENARIOS:
        message = f"there is no scenario {name!r}; `farcast simulate fraud --list` names them"
        raise UsageError(message, reason="no_scenario")
    return SCENARIOS[name]
