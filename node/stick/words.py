"""What the commands say of a stick, from the facts that they print with --json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DAMAGED_SHOWN = 20


def exported_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what an export did, for people."""
    titles = found["titles"]
    written = sum(one["written_bytes"] for one in titles)
    total = sum(one["bytes"] for one in titles)
    lines = [f"The stick has {_count(len(titles), 'title')}, {_mb(total)}; {_mb(written)} of it written now"]
    lines += [f"  {one['title']}  {_mb(one['bytes'])}" for one in titles]
    if not titles:
        lines.append("  no title is whole here; `farcast keep TITLE` makes one so")
    lines.append(f"Pulses written: {found['pulses']}; acks it carries: {found['acks']}")
    lines.append("Unmount the stick before you pull it out")
    return lines


def imported_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what an import did, for people: what is damaged comes last, named."""
    titles = found["titles"]
    new = sum(one["new_bytes"] for one in titles)
    lines = [f"Took {_count(len(titles), 'title')}, {_mb(new)} of it new and verified"]
    for one in titles:
        missing = one["missing_blocks"]
        rest = f"; {_count(missing, 'block')} of it are not on the stick" if missing else "; it plays offline"
        lines.append(f"  {one['title']}{rest}")
    lines.append(
        f"Pulses taken: {found['pulses']}; of this box settled by acks: {found['settled']}; "
        f"acks go back for: {found['returned']}"
    )
    if found["note"]:
        lines.append(f"Note: {found['note']}")
    damaged = found["damaged"]
    lines += [f"  left out: {one['file']} {one['why']}" for one in damaged[:DAMAGED_SHOWN]]
    if len(damaged) > DAMAGED_SHOWN:
        lines.append(f"  left out: {len(damaged) - DAMAGED_SHOWN} more (--json names all)")
    return lines


def incomplete(found: Mapping[str, Any]) -> bool:
    """Say whether something of the stick could not be had."""
    return bool(found["damaged"]) or any(one["missing_blocks"] for one in found["titles"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
