"""A finding: how one thing stands, in one sentence, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """How a thing stands, the worst first."""

    BAD = 0
    WARNING = 1
    OK = 2

    @property
    def label(self) -> str:
        """The word for it."""
        return self.name.lower()


class Finding(NamedTuple):
    """``sentence`` says how ``name`` stands, ``mend`` what to do about it; empty where nothing is to do."""

    name: str
    state: State
    sentence: str
    mend: str = ""


def ok(name: str, sentence: str) -> Finding:
    """Return that all is well."""
    return Finding(name, State.OK, sentence)


def warning(name: str, sentence: str, mend: str) -> Finding:
    """Return that something is worse than it could be."""
    return Finding(name, State.WARNING, sentence, mend)


def bad(name: str, sentence: str, mend: str) -> Finding:
    """Return that something keeps the box from its duty."""
    return Finding(name, State.BAD, sentence, mend)


def verdict(findings: Sequence[Finding]) -> str:
    """Say in one line how the box stands."""
    wrong = sum(each.state is State.BAD for each in findings)
    doubtful = sum(each.state is State.WARNING for each in findings)
    said = [_count(wrong, "is wrong", "are wrong")] if wrong else []
    said += [_count(doubtful, "could be better", "could be better")] if doubtful else []
    return ", ".join(said) or f"Healthy: all {len(findings)} checks are fine"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} thing {one}" if number == 1 else f"{number} things {many}"
