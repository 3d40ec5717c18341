"""QR codes: a short address as a square of modules (ISO/IEC 18004), made here, shown as one SVG path.

Byte mode, error correction level M, versions 1 to 10: up to 213 bytes, which no address of ours reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from ...protocol.errors import LocalError

LIMIT_BYTES = 213
QUIET = 4
"""Light modules that must stay free on every side (section 9.1)."""
_CHECK = (10, 16, 26, 18, 24, 16, 18, 22, 22, 26)
"""Error correction codewords of each block at level M, from version 1 on (table 9)."""
_BLOCKS = (1, 1, 1, 2, 2, 4, 4, 4, 5, 5)
_ALIGNED: tuple[tuple[int, ...], ...] = (
    (), (6, 18), (6, 22), (6, 26), (6, 30), (6, 34), (6, 22, 38), (6, 24, 42), (6, 26, 46), (6, 28, 50),
)  # fmt: skip
_LEVEL_M = 0
_FIELD, _FORMAT, _FORMAT_MASK, _VERSION = 0x11D, 0x537, 0x5412, 0x1F25
_VERSION_FROM, _LONG_COUNT_FROM = 7, 10
_PADS = (0xEC, 0x11)
_LINES = ((1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1))
"""What looks like a finder to a reader, and must be rare (table 11)."""
_RUN = 5

Grid = list[list[int]]


def qr(text: str) -> Grid:
    """Return the modules of ``text``, row by row, 1 for dark, without the quiet zone.

    Raises:
        LocalError: ``too_large`` past 213 bytes of UTF-8.

    """
    data = text.encode()
    version = next((one for one in range(1, 11) if len(data) <= _room(one)), 0)
    if not version:
        raise LocalError(f"{len(data)} bytes are too many for a QR code of ours", reason="too_large")
    grid, fixed = _patterns(version)
    _lay(grid, fixed, _codewords(data, version))
    masked = [_masked(grid, fixed, mask) for mask in range(8)]
    return min(masked, key=_penalty)


def path(grid: Sequence[Sequence[int]]) -> str:
    """Return the dark modules as the ``d`` of an SVG path, one unit each, moved by the quiet zone."""
    parts: list[str] = []
    for y, row in enumerate(grid):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end]:
                end += 1
            if end > x:
                parts.append(f"M{x + QUIET} {y + QUIET}h{end - x}v1h-{end - x}z")
            x = end + 1
    return "".join(parts)


# -- codewords


def _room(version: int) -> int:
    return _data_words(version) - (3 if version >= _LONG_COUNT_FROM else 2)


def _data_words(version: int) -> int:
    return _all_words(version) - _CHECK[version - 1] * _BLOCKS[version - 1]


def _all_words(version: int) -> int:
    modules = (16 * version + 128) * version + 64
    if version > 1:
        lines = len(_ALIGNED[version - 1])
        modules -= (25 * lines - 10) * lines - 55
    return (modules - (36 if version >= _VERSION_FROM else 0)) // 8


def _codewords(data: bytes, version: int) -> bytes:
    """Return data and error correction as they are laid, block by block interleaved (section 7.6)."""
    count_bits = 16 if version >= _LONG_COUNT_FROM else 8
    bits = f"0100{len(data):0{count_bits}b}" + "".join(f"{byte:08b}" for byte in data)
    room = _data_words(version)
    bits += "0" * min(4, room * 8 - len(bits))
    bits += "0" * (-len(bits) % 8)
    words = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    words += [_PADS[index % 2] for index in range(room - len(words))]
    count, check = _BLOCKS[version - 1], _CHECK[version - 1]
    short, longer = divmod(room, count)
    blocks: list[list[int]] = []
    for index in range(count):
        size = short + (index >= count - longer)
        blocks.append(words[:size])
        words = words[size:]
    checks = [_remainder(block, check) for block in blocks]
    return bytes([*_interleaved(blocks), *_interleaved(checks)])


def _interleaved(blocks: Sequence[Sequence[int]]) -> Iterator[int]:
    for index in range(max(map(len, blocks))):
        for block in blocks:
            if index < len(block):
                yield block[index]


def _remainder(block: Sequence[int], check: int) -> list[int]:
    """Return the Reed-Solomon remainder of a block: ``check`` codewords (section 7.5.2)."""
    divisor = _generator(check)
    rest = [0] * check
    for word in block:
        factor = word ^ rest[0]
        rest = [*rest[1:], 0]
        rest = [one ^ _times(coefficient, factor) for one, coefficient in zip(rest, divisor, strict=True)]
    return rest


@cache
def _generator(degree: int) -> tuple[int, ...]:
    """Return the product of (x - 2^i) for i below ``degree``, without its leading 1."""
    found = [0] * (degree - 1) + [1]
    root = 1
    for _ in range(degree):
        found = [
            _times(one, root) ^ (found[at + 1] if at + 1 < degree else 0) for at, one in enumerate(found)
        ]
        root = _times(root, 2)
    return tuple(found)


def _times(left: int, right: int) -> int:
    product = 0
    for bit in range(7, -1, -1):
        product = (product << 1) ^ ((product >> 7) * _FIELD)
        product ^= ((right >> bit) & 1) * left
    return product


# -- modules


class _Canvas:
    """A grid being drawn, and which of its modules are fixed."""

    def __init__(self, version: int) -> None:
        size = self.size = 17 + 4 * version
        self.grid: Grid = [[0] * size for _ in range(size)]
        self.fixed: Grid = [[0] * size for _ in range(size)]

    def place(self, x: int, y: int, dark: int) -> None:
        if 0 <= x < self.size and 0 <= y < self.size:
            self.grid[y][x], self.fixed[y][x] = dark, 1

    def rings(self, middle_x: int, middle_y: int, reach: int, light: Sequence[int]) -> None:
        """Draw squares around each other; those at the distances ``light`` are light."""
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                self.place(middle_x + dx, middle_y + dy, int(max(abs(dx), abs(dy)) not in light))


def _patterns(version: int) -> tuple[Grid, Grid]:
    """Return the grid with its fixed patterns, and which modules are theirs."""
    canvas = _Canvas(version)
    size, lines = canvas.size, _ALIGNED[version - 1]
    for at in range(size):
        canvas.place(6, at, 1 - at % 2)
        canvas.place(at, 6, 1 - at % 2)
    for x, y in ((3, 3), (size - 4, 3), (3, size - 4)):
        canvas.rings(x, y, 4, (2, 4))
    for x in lines:
        for y in lines:
            if (x, y) not in ((6, 6), (6, lines[-1]), (lines[-1], 6)):  # a finder is there
                canvas.rings(x, y, 2, (1,))
    if version >= _VERSION_FROM:
        bits = version << 12 | _checked(version, 12, _VERSION)
        for index in range(18):
            far, near = size - 11 + index % 3, index // 3
            canvas.place(far, near, bits >> index & 1)
            canvas.place(near, far, bits >> index & 1)
    _place_format(canvas.grid, canvas.fixed, 0)
    return canvas.grid, canvas.fixed


def _checked(value: int, bits: int, divisor: int) -> int:
    """Return the BCH remainder of ``value`` with ``bits`` check bits (annexes C and D)."""
    rest = value
    for _ in range(bits):
        rest = (rest << 1) ^ ((rest >> (bits - 1)) * divisor)
    return rest


def _place_format(grid: Grid, fixed: Grid, mask: int) -> None:
    """Write level and mask twice beside the finders (section 7.9)."""
    size = len(grid)
    value = _LEVEL_M << 3 | mask
    bits = (value << 10 | _checked(value, 10, _FORMAT)) ^ _FORMAT_MASK
    first = [(8, at) for at in (0, 1, 2, 3, 4, 5, 7, 8)] + [(at, 8) for at in (7, 5, 4, 3, 2, 1, 0)]
    second = [(size - 1 - at, 8) for at in range(8)] + [(8, size - 7 + at) for at in range(7)]
    for places in (first, second):
        for index, (x, y) in enumerate(places):
            grid[y][x], fixed[y][x] = bits >> index & 1, 1
    grid[size - 8][8], fixed[size - 8][8] = 1, 1


def _lay(grid: Grid, fixed: Grid, words: bytes) -> None:
    """Lay the codewords in columns of two, up and down, from the right (section 7.7.3)."""
    size = len(grid)
    bits = (word >> bit & 1 for word in words for bit in range(7, -1, -1))
    upward = True
    for right in (*range(size - 1, 6, -2), 5, 3, 1):
        for step in range(size):
            y = size - 1 - step if upward else step
            for x in (right, right - 1):
                if not fixed[y][x]:
                    grid[y][x] = next(bits, 0)
        upward = not upward


def _masked(grid: Grid, fixed: Grid, mask: int) -> Grid:
    found = [
        [dark ^ (not fixed[y][x] and _flips(mask, x, y)) for x, dark in enumerate(row)]
        for y, row in enumerate(grid)
    ]
    _place_format(found, [list(row) for row in fixed], mask)
    return found


def _flips(mask: int, x: int, y: int) -> bool:
    """Say whether a mask pattern turns a module over (table 10)."""
    return not (
        (x + y) % 2,
        y % 2,
        x % 3,
        (x + y) % 3,
        (x // 3 + y // 2) % 2,
        x * y % 2 + x * y % 3,
        (x * y % 2 + x * y % 3) % 2,
        ((x + y) % 2 + x * y % 3) % 2,
    )[mask]


def _penalty(grid: Grid) -> int:
    """Return how hard a grid is to read (section 7.8.3.1)."""
    total = 0
    for lines in (grid, [*zip(*grid, strict=True)]):
        for line in lines:
            total += _runs(line)
            total += 40 * sum(tuple(line[at : at + 11]) in _LINES for at in range(len(line) - 10))
    for above, below in pairwise(grid):
        for at in range(len(above) - 1):
            total += 3 * (above[at] == above[at + 1] == below[at] == below[at + 1])
    dark = sum(map(sum, grid)) * 100 // len(grid) ** 2
    return total + 10 * (abs(dark - 50) // 5)


def _runs(line: Sequence[int]) -> int:
    total, length = 0, 0
    for at, one in enumerate(line):
        length = length + 1 if at and one == line[at - 1] else 1
        if length >= _RUN:
            total += 3 if length == _RUN else 1
    return total
