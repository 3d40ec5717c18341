"""QR codes by what the standard says of them; a real reader reads them in tests/interop/test_qr.py."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.page.qr import LIMIT_BYTES, QUIET, path, qr
from farcast.protocol.errors import LocalError

FORMATS = {
    "101010000010010": 0, "101000100100101": 1, "101111001111100": 2, "101101101001011": 3,
    "100010111111001": 4, "100000011001110": 5, "100111110010111": 6, "100101010100000": 7,
}  # fmt: skip
"""Every format string of level M, from the highest bit on (ISO/IEC 18004, table C.1)."""


def formats(grid: list[list[int]]) -> tuple[str, str]:
    """Return both copies of the format string, from the highest bit on."""
    size = len(grid)
    first = [grid[8][x] for x in (0, 1, 2, 3, 4, 5, 7)] + [grid[y][8] for y in (8, 7, 5, 4, 3, 2, 1, 0)]
    second = [grid[y][8] for y in range(size - 1, size - 8, -1)] + [grid[8][x] for x in range(size - 8, size)]
    return "".join(map(str, first)), "".join(map(str, second))


@given(st.text(max_size=LIMIT_BYTES // 4))
def test_every_code_has_its_finders_its_timing_and_one_format(text: str) -> None:
    grid = qr(text)
    size = len(grid)
    assert size in range(21, 58, 4)
    assert all(len(row) == size for row in grid)
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        rows = ["".join(map(str, row[left : left + 7])) for row in grid[top : top + 7]]
        assert rows == ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]
    assert [grid[6][x] for x in range(8, size - 8)] == [(x + 1) % 2 for x in range(8, size - 8)]
    first, second = formats(grid)
    assert first == second
    assert first in FORMATS


@pytest.mark.parametrize(
    ("length", "version"), [(14, 1), (15, 2), (62, 4), (63, 5), (122, 7), (152, 8), (213, 10)]
)
def test_the_smallest_version_that_holds_the_text_is_taken(length: int, version: int) -> None:
    assert len(qr("x" * length)) == 17 + 4 * version


def test_a_text_too_long_is_a_sentence() -> None:
    with pytest.raises(LocalError, match="too many"):
        qr("x" * (LIMIT_BYTES + 1))


def test_the_path_draws_every_dark_module_once() -> None:
    grid = qr("http://192.168.1.20:7481/")
    drawn = [[0] * len(grid) for _ in grid]
    for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path(grid)):
        for at in range(int(width)):
            drawn[int(y) - QUIET][int(x) - QUIET + at] += 1
    assert drawn == grid
