"""What will be asked for next: the segments after one that is being watched. Pure."""

from __future__ import annotations

import re
from collections import OrderedDict

AGAIN_S = 30.0
REMEMBERED = 4_096

_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})(\.[A-Za-z0-9]{1,8})")


def following(path: str, count: int) -> list[str]:
    """Return the paths of the ``count`` files numbered after ``path``; none where it has no number."""
    folder, _, name = path.rpartition("/")
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return []
    stem, digits, ending = match.groups()
    start = f"{folder}/{stem}" if folder else stem
    return [f"{start}{int(digits) + step:0{len(digits)}d}{ending}" for step in range(1, count + 1)]


class Ahead:
    """Names each following segment once in a while, however many watch."""

    def __init__(self, count: int, *, again_s: float = AGAIN_S, limit: int = REMEMBERED) -> None:
        """Look ``count`` segments ahead; 0 looks nowhere."""
        self._count = count
        self._again_s = again_s
        self._limit = limit
        self._named: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered as named."""
        return len(self._named)

    def asked(self, title: str, path: str, now: float) -> list[str]:
        """Hear that a file is watched; returns the files to bring that were not named lately."""
        fresh: list[str] = []
        for after in following(path, self._count):
            until = self._named.get((title, after), float("-inf"))
            if now >= until:
                fresh.append(after)
                self._named[title, after] = now + self._again_s
                self._named.move_to_end((title, after))
        while len(self._named) > self._limit:
            self._named.popitem(last=False)
        return fresh
