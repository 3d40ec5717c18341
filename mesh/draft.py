"""One block on its way into this box."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Job:
    """Who is to bring a block, and since when.

    ``claimed``: this box brings it for all, straight from one that has everything.
    """

    giver: bytes
    at: float
    claimed: bool
    urgent: bool


@dataclass(slots=True, eq=False)
class Draft:
    """What came of a block so far.

    ``asked`` are all that were ever asked for it, ``givers`` those whose parts are in it; ``hearsay``: some
    came from one that had not verified the block itself.
    """

    got: set[int] = field(default_factory=set[int])
    asked: set[bytes] = field(default_factory=set[bytes])
    givers: set[bytes] = field(default_factory=set[bytes])
    hearsay: bool = False
    whole: bool = False
