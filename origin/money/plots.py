"""The plots of a report's page, as SVG: no script, nothing loaded, colours from the page's style.

Every mark says its number in words (``title``) for who points at it or has it read aloud; lengths are
in units of the view box, which the page scales to its width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 720
_ROW, _BAR = 26, 16
_LABEL = 190
_NUMBER = 96
_FLOW_HEIGHT, _NODE, _GAP = 300, 12, 10

Said = Callable[[int], str]
"""How a plot's numbers read: cents as money, ms as hours."""


class Part(NamedTuple):
    """One part of a flow: what it is, how much, and the class of its colour (``c1`` to ``c7``)."""

    name: str
    amount: int
    colour: str


class Pair(NamedTuple):
    """Two numbers of one name, to be compared."""

    name: str
    first: int
    second: int


def flow(sources: Sequence[Part], middle: Sequence[Part], ends: Sequence[Part], said: Said) -> str:
    """Draw money from ``sources`` through ``middle`` to ``ends``.

    The last of ``middle`` is what goes on to ``ends``; both sides of each step have one sum.
    """
    left, right, far = 0, 240, 490
    whole = max(1, sum(part.amount for part in sources))
    tall = [len([p for p in column if p.amount]) for column in (sources, middle, ends)]
    scale = (_FLOW_HEIGHT - _GAP * max(*tall, 1)) / whole
    first = _column(sources, scale, 0.0)
    second = _column(middle, scale, 0.0)
    start = second[-1][1] if second else 0.0
    spread = (len([p for p in ends if p.amount]) - 1) * _GAP
    third = _column(ends, scale, max(0.0, min(start - spread / 2, _FLOW_HEIGHT - spread - scale * whole)))
    ribbons = _ribbons(first, second, left, right) + _ribbons(second[-1:], third, right, far)
    nodes = (
        _nodes(first, left, said, "start")
        + _nodes(second, right, said, "start")
        + _nodes(third, far, said, "start")
    )
    height = max([_FLOW_HEIGHT, *(y + tall_ for _, y, tall_ in third)])
    return _svg(height + 4, "Where the money goes", ribbons + nodes)


def columns(items: Sequence[tuple[str, int]], unit: int, said: Said, what: str) -> str:
    """Draw a column for each item with a scale of whole ``unit``s on the left, a label under every fifth."""
    top, left, height = 8, 64, 180
    peak = unit * _round_up(-(-max((amount for _, amount in items), default=0) // unit))
    step = (WIDTH - left) / max(1, len(items))
    marks: list[str] = []
    for quarter in range(5):
        y = top + height - height * quarter / 4
        marks.append(f'<line class="grid" x1="{left}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(_text(left - 8, y + 4, said(peak * quarter // 4), "end"))
    for index, (name, amount) in enumerate(items):
        tall = height * amount / peak if peak else 0.0
        x = left + index * step + step * 0.14
        marks.append(
            f'<rect class="c1" x="{x:.1f}" y="{top + height - tall:.1f}" width="{step * 0.72:.1f}" '
            f'height="{tall:.1f}">{_title(f"{name}: {said(amount)}")}</rect>'
        )
        if index % 5 == 0 or len(items) < 8:  # noqa: PLR2004 - as many labels as fit
            marks.append(_text(x + step * 0.36, top + height + 18, name[-5:], "middle"))
    return _svg(top + height + 26, what, marks)


def bars(items: Sequence[tuple[str, int]], said: Said, what: str) -> str:
    """Draw a bar for each item, its name before and its number behind."""
    most = max((amount for _, amount in items), default=0)
    room = WIDTH - _LABEL - _NUMBER
    marks: list[str] = []
    for index, (name, amount) in enumerate(items):
        y, long = index * _ROW, room * amount / most if most else 0.0
        marks.append(_text(_LABEL - 10, y + 17, name, "end"))
        marks.append(f'<rect class="c3" x="{_LABEL}" y="{y + 5}" width="{long:.1f}" height="{_BAR}"/>')
        marks.append(_text(_LABEL + long + 8, y + 17, said(amount), "start"))
    return _svg(len(items) * _ROW + 6, what, marks)


def pairs(items: Sequence[Pair], said: Said, what: str, names: tuple[str, str]) -> str:
    """Draw two bars for each item, one over the other, with a key above."""
    most = max((max(item.first, item.second) for item in items), default=0)
    room, tall = WIDTH - _LABEL - _NUMBER, 8
    marks = [
        f'<rect class="c1" x="{_LABEL}" y="2" width="12" height="10"/>',
        _text(_LABEL + 18, 12, names[0], "start"),
        f'<rect class="c5" x="{_LABEL + 130}" y="2" width="12" height="10"/>',
        _text(_LABEL + 148, 12, names[1], "start"),
    ]
    for index, item in enumerate(items):
        y = 24 + index * (_ROW + 4)
        first, second = ((room * each / most if most else 0.0) for each in (item.first, item.second))
        marks.append(_text(_LABEL - 10, y + 15, item.name, "end"))
        marks.append(f'<rect class="c1" x="{_LABEL}" y="{y + 1}" width="{first:.1f}" height="{tall}"/>')
        marks.append(f'<rect class="c5" x="{_LABEL}" y="{y + 11}" width="{second:.1f}" height="{tall}"/>')
        gap = item.second - item.first
        sign = "+" if gap > 0 else "-" if gap < 0 else ""
        told = f"{sign}{said(abs(gap))}" if gap else "no gap"
        marks.append(_text(_LABEL + max(first, second) + 8, y + 15, told, "start"))
        marks.append(
            f'<rect class="over" x="0" y="{y}" width="{WIDTH}" height="{_ROW}">'
            f"{_title(f'{item.name}: {names[0]} {said(item.first)}, {names[1]} {said(item.second)}')}</rect>"
        )
    return _svg(24 + len(items) * (_ROW + 4), what, marks)


def _column(parts: Sequence[Part], scale: float, top: float) -> list[tuple[Part, float, float]]:
    """Place the parts of one step of a flow under each other: part, y, height."""
    placed: list[tuple[Part, float, float]] = []
    for part in parts:
        if part.amount > 0:
            placed.append((part, top, max(1.0, part.amount * scale)))
            top += placed[-1][2] + _GAP
    return placed


def _ribbons(
    before: Sequence[tuple[Part, float, float]], after: Sequence[tuple[Part, float, float]], x: int, to: int
) -> list[str]:
    """Join two steps from the top: each part of ``after`` takes what it needs of ``before``, in order."""
    found: list[str] = []
    sources: list[tuple[float, float, int]] = [(y, tall, part.amount) for part, y, tall in before]
    middle = (x + _NODE + to) / 2
    for part, y, tall in after:
        need, at = part.amount, y
        for place, (low, left, amount) in enumerate(sources):
            taken = min(need, amount)
            if not taken:
                continue
            mine, its, high = tall * taken / part.amount, left * taken / amount, at
            found.append(
                f'<path class="ribbon {part.colour}" d="M{x + _NODE} {low:.1f} C{middle:.1f} {low:.1f} '
                f"{middle:.1f} {high:.1f} {to} {high:.1f} V{high + mine:.1f} C{middle:.1f} {high + mine:.1f} "
                f'{middle:.1f} {low + its:.1f} {x + _NODE} {low + its:.1f} Z"/>'
            )
            sources[place] = (low + its, left - its, amount - taken)
            at += mine
            need -= taken
    return found


def _nodes(placed: Sequence[tuple[Part, float, float]], x: int, said: Said, anchor: str) -> list[str]:
    found: list[str] = []
    below = 0.0
    for part, y, tall in placed:
        name = part.name if len(part.name) <= 24 else f"{part.name[:23]}…"  # noqa: PLR2004 - what fits
        told = f"{part.name}: {said(part.amount)}"
        found.append(
            f'<rect class="{part.colour}" x="{x}" y="{y:.1f}" width="{_NODE}" height="{tall:.1f}">'
            f"{_title(told)}</rect>"
        )
        line = max(y + tall / 2 + 4, below)  # thin parts push the next label down
        found.append(_text(x + _NODE + 6, line, f"{name} {said(part.amount)}", anchor))
        below = line + 14
    return found


def _round_up(number: int) -> int:
    """Return the next number, from 4 on, that four lines part into whole and round steps."""
    size = 1
    while True:
        for step in (4, 8, 12, 20, 32):
            if number <= size * step:
                return size * step
        size *= 10


def _text(x: float, y: float, words: str, anchor: str) -> str:
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    words = words if len(words) <= 40 else f"{words[:39]}…"  # noqa: PLR2004 - what fits beside a bar
    return f'<text x="{x:.1f}" y="{y:.1f}"{place}>{escape(words)}</text>'


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>"


def _svg(height: float, what: str, marks: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(what)}">\n'
        + "\n".join(marks)
        + "\n</svg>"
    )
