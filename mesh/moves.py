"""What a swarm decides to do: its shell carries these out, in order."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .partner import Unit


class Sake(IntEnum):
    """For whom a block is asked for."""

    OWN = 0
    ALL = 1
    """It is claimed: this box brings it for all."""
    LATE = 2
    """Likewise, and in place of one who is late with it."""


class Ask(NamedTuple):
    """Ask ``peer`` for these parts of a block, for whose ``sake``; ``urgent``: it is watched soon."""

    peer: bytes
    block: int
    parts: tuple[int, ...]
    urgent: bool
    sake: Sake


class Withdraw(NamedTuple):
    """Tell ``peer`` that a block is not wanted from it any more."""

    peer: bytes
    block: int


class Tell(NamedTuple):
    """Tell ``peer`` what is held now, what this box is bringing, and what it brings no longer."""

    peer: bytes
    held: tuple[int, ...]
    claimed: tuple[int, ...]
    given_up: tuple[int, ...]


class Send(NamedTuple):
    """Send ``peer`` one unit; report ``sent`` when the connection takes more."""

    peer: bytes
    unit: Unit


class Lack(NamedTuple):
    """Tell ``peer`` that a block it asked for is neither here nor coming."""

    peer: bytes
    block: int


class Refer(NamedTuple):
    """Tell ``peer`` that a block it claims was given to ``to``, which passes it on."""

    peer: bytes
    block: int
    to: bytes


class Fetch(NamedTuple):
    """Bring a block over this box's own uplink; report ``fetched`` or ``failed``."""

    block: int


class Check(NamedTuple):
    """All parts of a block are here: hash and keep it; report ``verified`` or ``broken``."""

    block: int


class Forget(NamedTuple):
    """Throw away what came of a block."""

    block: int


class Cut(NamedTuple):
    """End the connection with ``peer`` and have no more to do with it in this swarm; why, in a word."""

    peer: bytes
    reason: str


Move = Ask | Withdraw | Tell | Send | Lack | Refer | Fetch | Check | Forget | Cut
