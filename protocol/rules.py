"""The rules by which viewed time becomes money: one versioned message, hashed into every report."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, encode
from .manifest import BASIS_POINTS, Count

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Points = Annotated[int, Meta(ge=0, le=BASIS_POINTS)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]


class Rules(Message, frozen=True):
    """What a settlement was computed with; times in ms, shares in basis points.

    ``live_window_ms``: a pulse received within this time of its own is live; further ahead it is
    rejected. ``gap_ms`` ends a session. ``session_cap_ms`` and ``day_cap_ms`` (per account) cut the
    latest time. ``slack_ms``: how far playback may outrun the wall clock. ``late_window_ms``: how
    long after its month a pulse is still taken. ``reserve_base``: what the reserve is a share of.
    ``median_factor`` over the median volume is flagged once there are ``median_accounts``, and so
    are ``near_cap_days`` days in a row of at least ``near_cap_ms``; what is held may be appealed
    against for ``appeal_ms``. ``payer_factor``: no account moves more than so many times its own
    contribution. ``relay_cents_per_gb``: relay pay per 10^9 bytes, of at most ``relay_bytes_s`` all
    through a UTC day. ``mode``: whether the pool is split by everybody's viewing together, or each
    account's part of it by its own. Audience groups of fewer than ``group_viewers`` are merged.
    """

    v: Literal[2] = 2
    currency: Currency = "EUR"
    live_window_ms: Count = 120_000
    gap_ms: Count = 300_000
    session_cap_ms: Count = 6 * HOUR_MS
    day_cap_ms: Count = 16 * HOUR_MS
    slack_ms: Count = 2_000
    late_window_ms: Count = 10 * DAY_MS
    reserve_points: Points = 500
    reserve_base: Literal["revenue", "surplus"] = "revenue"
    median_factor: Count = 3
    median_accounts: Count = 30
    near_cap_ms: Count = 15 * HOUR_MS
    near_cap_days: Count = 3
    payer_factor: Count = 3
    relay_cents_per_gb: Count = 2
    group_viewers: Count = 10
    mode: Literal["pooled", "per_payer"] = "pooled"
    appeal_ms: Count = 30 * DAY_MS
    relay_bytes_s: Count = 125_000_000


def rules_hash(rules: Rules) -> bytes:
    """Return the name of a rule set: SHA-256 of its encoding."""
    return sha256(encode(rules)).digest()


def reserve_cents(rules: Rules, revenue_cents: int, costs_cents: int) -> int:
    """Return the reserve: a share of revenue, or of what revenue leaves over costs; rounded down."""
    base = revenue_cents if rules.reserve_base == "revenue" else max(0, revenue_cents - costs_cents)
    return base * rules.reserve_points // BASIS_POINTS


def relay_cents(rules: Rules, kbytes: int) -> int:
    """Return the pay for ``kbytes`` (1,000 bytes each) a relay served; rounded down."""
    return kbytes * rules.relay_cents_per_gb // 1_000_000


def relay_day_kbytes(rules: Rules) -> int:
    """Return the most kilobytes a relay can be paid for of one UTC day: what its line could carry."""
    return rules.relay_bytes_s * (DAY_MS // 1_000) // 1_000
