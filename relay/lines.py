"""What ``farcast relay status`` prints for a person: the verdict, then the numbers."""

from __future__ import annotations

from typing import Any

from ..node.radio import heard
from .payslip import payslip_lines

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_RATES = ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s"))


def size(size_bytes: int) -> str:
    """Return bytes as a person reads them: ``1.5 GB``."""
    return _scaled(size_bytes, _SIZES, "B")


def rate(rate_bps: int) -> str:
    """Return bits per second as a person reads them: ``20 Mbit/s``."""
    return _scaled(rate_bps, _RATES, "bit/s")


def volume(contract: dict[str, Any]) -> str:
    """Say what of the month's volume is used, and when the next month begins."""
    used, limit, resets = size(contract["used_bytes"]), contract["limit_bytes"], contract["resets"][:10]
    if not limit:
        return f"{used} (no limit) until {resets}"
    percent = contract["used_bytes"] * 100 // limit
    return f"{used} of {size(limit)} ({percent} %) until {resets}"


def speed(serving: dict[str, Any], contract: dict[str, Any]) -> str:
    """Say what is being carried now, and under which limits."""
    parts: list[str] = []
    for way in ("up", "down"):
        limit = contract[f"rate_{way}_bps"]
        within = f" of {rate(limit)}" if limit else ""
        parts.append(f"{way} {rate(serving[f'{way}_bps'])}{within}")
    return ", ".join(parts)


def beside(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how the processes beside the relay are, gossip and radio, each line with the name before it."""
    gossip, radio = found["hints"]["gossip"], found["radio"]
    lines: list[tuple[str, str]] = []
    if gossip:
        why = f": {gossip['why']}" if gossip["why"] and gossip["state"] != "up" else ""
        lines.append(("gossip", f"{gossip['state']}, {gossip['peers']} peers{why}"))
    return lines + [("radio", line) for line in (heard(radio) if radio else [])]


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return the lines, the verdict first; a relay without an origin has few of them."""
    if found["standing"] == "standalone":
        held = f"{size(found['store']['bytes'])}, {found['store']['blocks']} blocks"
        labels = ", ".join(found["imports"]) or "none"
        return [
            found["verdict"],
            f"  this month      {volume(found['contract'])}",
            f"  holds           {held}",
            f"  imports         {labels}",
        ]
    contract, failures, store = found["contract"], found["failures"], found["store"]
    lines = [found["verdict"]]
    lines += [f"  reachable       {row['address']}: {row['result']}" for row in found["reachability"]]
    if found["nat"]:
        lines.append(f"  network         {found['nat']}")
    connections = found["serving"]["connections"]
    lines += [
        f"  this month      {volume(contract)}",
        f"  serving now     {connections} connections, {speed(found['serving'], contract)}",
        f"  holds           {size(store['bytes'])} of {size(store['quota_bytes'])}, {store['blocks']} blocks",
    ]
    for row in found["holdings"]:
        budget = f" of {size(row['budget_bytes'])}" if row["budget_bytes"] is not None else ""
        lines.append(f"    {row['publisher']}  {row['titles']} titles, {size(row['bytes'])}{budget}")
    lines += [f"  {name:<15} {line}" for name, line in beside(found)]
    damaged, rejected = int(failures["damaged_blocks"]), failures["rejected_blocks"]
    return [
        *lines,
        f"  failures        {damaged} damaged blocks, {rejected} rejected",
        f"  pulses waiting  {found['pulses_waiting']}",
        *(f"  earned          {line}" for line in payslip_lines(found["earnings"])),
        f"  version         {found['version']}",
    ]


def _scaled(value: int, units: tuple[tuple[int, str], ...], least: str) -> str:
    for factor, unit in units:
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value} {least}"
