"""Airing: how often each title should come on the carousel, and what of it is told to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..satellite.carousel import CarouselStatus

NEW_MS = 7 * 86_400_000
NEW_FACTOR = 4.0
POPULAR_FACTOR = 9.0
SHOWN = 8


class Listed(NamedTuple):
    """A title on air: since when it is listed, and how long it was watched this month and last."""

    title: str
    at_ms: int
    viewed_ms: int


def by_priority(titles: Sequence[Listed], now_ms: int) -> list[tuple[str, float]]:
    """Return each title with its weight, the newest first.

    The title watched most weighs ten times one that nobody watched; the first week counts four times.
    """
    most_ms = max((one.viewed_ms for one in titles), default=0)
    rows: list[tuple[str, float]] = []
    for one in sorted(titles, key=lambda one: (-one.at_ms, one.title)):
        popular = 1.0 + POPULAR_FACTOR * one.viewed_ms / max(most_ms, 1)
        rows.append((one.title, popular * (NEW_FACTOR if now_ms - one.at_ms < NEW_MS else 1.0)))
    return rows


def facts(status: CarouselStatus, planned_loss_percent: int, missing_blocks: int) -> dict[str, Any]:
    """Return what ``farcast origin status`` says of the carousel."""
    return {
        "rate_bps": status.rate_bps,
        "paused": status.paused,
        "planned_loss_percent": planned_loss_percent,
        "head_cycle_s": round(status.head_cycle_s, 1),
        "title_cycle_s": round(status.title_cycle_s, 1),
        "missing_blocks": missing_blocks,
        "titles": [
            {
                "title": one.title,
                "on_air": one.on_air,
                "begins_in_s": _whole(one.begins_in_s),
                "whole_in_s": _whole(one.whole_in_s),
                "generations": one.generations,
                "size_bytes": one.size_bytes,
                "weight": round(one.weight, 2),
            }
            for one in status.titles
        ],
    }


def described(air: dict[str, Any]) -> list[str]:
    """Say the same in lines for people."""
    once = f"all titles once in {span(air['title_cycle_s'])}"
    lines = ["paused" if air["paused"] else f"{air['rate_bps'] / 1e6:g} Mbit/s, {once}"]
    titles: list[dict[str, Any]] = air["titles"]
    for row in titles[:SHOWN]:
        when = "on air now" if row["on_air"] else f"in {span(row['begins_in_s'])}"
        lines.append(f"{row['title']}: {when}, whole in {span(row['whole_in_s'])}")
    if len(titles) > SHOWN:
        lines.append(f"and {len(titles) - SHOWN} more titles")
    if air["missing_blocks"]:
        lines.append(f"{air['missing_blocks']} blocks of titles are not in the store and are not sent")
    return lines


def span(seconds: object) -> str:
    """Say a time in the unit that fits."""
    if not isinstance(seconds, (int, float)):
        return "a time too far off to tell"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - two hours


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
