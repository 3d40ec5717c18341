"""The matrix: which player meets which fault with which tiers lost, and the tenth of it that CI plays."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import NamedTuple

from farcast.tests.browser.line import FAULTS, Fault

SHARE = 10
DRAWS = 100_000


class Loss(StrEnum):
    """Which tiers the fault takes."""

    CDN = "cdn"
    WAN = "cdn+relays"
    ALL_BUT_SATELLITE = "all-but-satellite"


LOST = {
    Loss.CDN: ("cdn",),
    Loss.WAN: ("cdn", "relay-1", "relay-2"),
    Loss.ALL_BUT_SATELLITE: ("cdn", "relay-1", "relay-2", "neighbour", "origin"),
}
"""The lines that a loss takes."""
PLAYERS = (
    "hls.js", "hls.js tuned", "shaka hls", "shaka dash", "dash.js", "chromium", "mpv", "vlc",
)  # fmt: skip
"""Shaka by both formats; ``chromium`` is the browser's own HLS."""


class Case(NamedTuple):
    """One cell of the matrix."""

    player: str
    fault: Fault
    loss: Loss

    def __str__(self) -> str:
        return f"{self.player} {self.fault} {self.loss}".replace(" ", "-")


MATRIX = tuple(Case(player, fault, loss) for player in PLAYERS for fault in FAULTS for loss in Loss)


def sample(seed: int) -> list[Case]:
    """Return a tenth of the matrix in which every player, fault and loss is."""
    rng = random.Random(seed)
    count = -(-len(MATRIX) // SHARE)
    for _ in range(DRAWS):
        drawn = rng.sample(MATRIX, count)
        players, faults, losses = (set(part) for part in zip(*drawn, strict=True))
        if players == set(PLAYERS) and faults == set(FAULTS) and losses == set(Loss):
            return drawn
    raise AssertionError(f"no sample of {count} cases in {DRAWS} draws holds every player and fault")
