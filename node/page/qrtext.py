"""A QR code for a terminal: two rows of modules a line, in half blocks that any font has."""

from __future__ import annotations

from .qr import QUIET, qr

_HALVES = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
"""Light modules are drawn, so that it reads on a dark terminal; readers take the inverse as well."""


def qr_lines(text: str) -> list[str]:
    """Return the lines that show ``text`` as a QR code; raises ``LocalError`` where it is too long."""
    code = qr(text)
    width = len(code) + 2 * QUIET
    grid = [[0] * width for _ in range(QUIET)]
    grid += [[0] * QUIET + row + [0] * QUIET for row in code]
    grid += [[0] * width for _ in range(QUIET + width % 2)]
    return [
        "".join(_HALVES[pair] for pair in zip(above, below, strict=True))
        for above, below in zip(grid[::2], grid[1::2], strict=True)
    ]
