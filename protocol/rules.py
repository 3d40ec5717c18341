"""The rules by which viewed time becomes money: one versioned message, hashed into every report."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import astuple

from .codec import Message, encode
from .manifest import BASIS_POINTS, Count

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_NO_BOUND_KBYTES = 1 << 62

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

    ``v`` says how the numbers are applied: a month is settled, and settled again, by its own version.
    Version 1 knew no appeal and no bound on a relay's day; versions 1 and 2 let every start, return or
    switch begin a session, and put what the per-payer cap cut into the next month's pool.
    """

    v: Literal[1, 2, 3] = 3
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

    @property
    def breaks_sessions(self) -> bool:
        """Whether only a real break, of more than ``gap_ms``, lets a title's next session begin."""
        return self.v >= _BREAKS

    @property
    def keeps_capped(self) -> bool:
        """Whether what the per-payer cap cuts is kept apart, instead of joining the next pool."""
        return self.v >= _BREAKS


_BREAKS = 3
_FIRST_FIELDS = 18
"""Fields of version 1; the later versions have all of them."""


def rules_form(rules: Rules) -> Rules | tuple[object, ...]:
    """Return what is encoded for a rule set: the fields that its version has."""
    return astuple(rules)[:_FIRST_FIELDS] if rules.v == 1 else rules


def rules_fields(rules: Rules) -> dict[str, object]:
    """Return the fields that a rule set's version has, by name."""
    names = rules.__struct_fields__[:_FIRST_FIELDS] if rules.v == 1 else rules.__struct_fields__
    return {name: getattr(rules, name) for name in names}


def rules_hash(rules: Rules) -> bytes:
    """Return the name of a rule set: SHA-256 of its encoding."""
    return sha256(encode(rules_form(rules))).digest()


def reserve_cents(rules: Rules, revenue_cents: int, costs_cents: int) -> int:
    """Return the reserve: a share of revenue, or of what revenue leaves over costs; rounded down."""
    base = revenue_cents if rules.reserve_base == "revenue" else max(0, revenue_cents - costs_cents)
    return base * rules.reserve_points // BASIS_POINTS


def relay_cents(rules: Rules, kbytes: int) -> int:
    """Return the pay for ``kbytes`` (1,000 bytes each) a relay served; rounded down."""
    return kbytes * rules.relay_cents_per_gb // 1_000_000


def relay_day_kbytes(rules: Rules) -> int:
    """Return the most kilobytes a relay can be paid for of one UTC day: what its line could carry."""
    if rules.v == 1:
        return _NO_BOUND_KBYTES
    return rules.relay_bytes_s * (DAY_MS // 1_000) // 1_000
