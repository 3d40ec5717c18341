"""How long work tells how far it is, whoever listens: a terminal, an admin call, or nobody."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Tells how far long work is."""

    def __call__(self, stage: str, done: float, total: float = 1.0) -> None:
        """Say that of a stage's ``total`` so much is ``done``."""
        ...


def quiet(stage: str, done: float, total: float = 1.0) -> None:
    """Report to nobody."""
    del stage, done, total
