"""Actions: what the origin's team can do, by name, with plain values in and out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..node.report import Report
from ..protocol.errors import UsageError

Result = dict[str, Any]
"""What an action returns: plain values, ready for JSON."""

Actions = dict[str, Callable[..., Result]]
"""A desk's actions by their names."""


def act(actions: Actions, action: str, arguments: Mapping[str, object], report: Report) -> Result:
    """Do one action by name with JSON arguments; long ones tell ``report`` how far they are.

    Raises:
        UsageError: for an unknown action or arguments it does not take, and what it raises.

    """
    method = actions.get(action)
    if method is None:
        raise UsageError(f"the origin knows no action {action!r}", reason="unknown_action")
    parameters = inspect.signature(method, eval_str=True).parameters
    if unknown := arguments.keys() - parameters.keys():
        raise UsageError(f"{action} takes no {', '.join(sorted(unknown))}", reason="bad_arguments")
    try:
        values: dict[str, object] = {
            name: msgspec.convert(value, parameters[name].annotation) for name, value in arguments.items()
        }
        if "progress" in parameters:
            values["progress"] = report
        bound = inspect.signature(method).bind(**values)
    except (msgspec.ValidationError, TypeError) as error:
        raise UsageError(f"{action}: {error}", reason="bad_arguments") from error
    return method(*bound.args, **bound.kwargs)


def date(at_ms: int) -> str:
    """Return the day of a time in UTC, as results say it."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).date().isoformat()
