"""The walk through each ticket's pulses, as queries: from the pulses, or from rollups of days that are over.

In order of their numbers. ``since`` is the time since the pulse before: over the gap, the pulse earns
nothing. Claims beyond the own clock's step (``excess``) eat the slack. ``walked`` has a row for each
title and relay of a ticket; ``steps`` goes on from there.
"""

from __future__ import annotations

from ...protocol.rules import Rules
from ..pulses.rows import AGAIN, FIRST, NOBODY
from .steps import SEQ_SHIFT, TIME_SHIFT, Scope

_SUMS = (
    "manifest, relay, kbytes, claimed, ms, pulses, gap_ms, gap_pulses, excess, first_time, first_delta, "
    "last_at, last_key, strange"
)


MIXED = "(SELECT * FROM pulses SEMI JOIN mixed USING (ticket))"
"""The pulses of the tickets that ``mixed`` names."""


def earlier(scope: Scope, pulses: str = "pulses") -> str:
    """Return the smallest delay among later copies of a body: another relay may have had it sooner."""
    return _as("earlier", _copies(pulses, scope.sql()))


def walk(scope: Scope, rules: Rules) -> str:
    """Return what each ticket's pulses of each title, brought by each relay, come to."""
    return _as("walked", _walked("pulses", scope.sql("p"), rules))


def rollup(pulses: str, rules: Rules) -> str:
    """Return what ``walk`` makes of one part's ``pulses``, with each ticket's bucket and day.

    A ticket of which the part has later copies alone has a row that says nothing else.
    """
    return f"""
        WITH earlier AS ({_copies(pulses, "true")}), walked AS ({_walked(pulses, "true", rules)}),
        met AS (SELECT ticket, min(bucket) AS bucket, min(day) AS day FROM {pulses} GROUP BY ticket)
        SELECT m.bucket, m.day, m.ticket, {_SUMS},
            CASE WHEN w.ticket IS NULL THEN 0 ELSE first_at END AS first_at
        FROM met m LEFT JOIN walked w ON w.ticket = m.ticket ORDER BY m.bucket, m.ticket
    """


def mixed(scope: Scope, loose: str | None) -> str:
    """Return the tickets that no rollup tells all of: in several parts, or in the ``loose`` pulses."""
    more = f" UNION SELECT ticket FROM {loose} WHERE {scope.sql()}" if loose else ""
    return _as(
        "mixed",
        f"""
        SELECT ticket FROM rolled WHERE first_at IS NOT NULL AND {scope.reach()}
        GROUP BY ticket HAVING count(*) > 1{more}
        """,
    )


def walk_rolled(scope: Scope, rules: Rules, *, any_mixed: bool) -> str:
    """Return ``walk`` from the rollups, and from their pulses for the mixed tickets."""
    more = f" UNION ALL BY NAME SELECT * FROM ({_walked(MIXED, scope.sql('p'), rules)})" if any_mixed else ""
    return _as(
        "walked",
        f"""
        SELECT ticket, {_SUMS}, first_at FROM rolled ANTI JOIN mixed USING (ticket)
        WHERE {scope.reach()}{more}
        """,
    )


def _as(table: str, query: str) -> str:
    return f"CREATE OR REPLACE TEMP TABLE {table} AS {query}"


def _copies(pulses: str, scope: str) -> str:
    return f"""
        SELECT ticket, seq, min(late_ms) AS late_ms FROM {pulses}
        WHERE kind = {AGAIN} AND {scope} GROUP BY ALL
    """


def _walked(pulses: str, scope: str, rules: Rules) -> str:
    return f"""
        WITH body AS (
            SELECT p.ticket, p.seq, p.at_ms, p.delta_ms, p.cum_ms, p.manifest,
                p.relay1 AS relay, p.kbytes1 AS kbytes,
                least(p.late_ms, coalesce(e.late_ms, p.late_ms)) AS late_ms,
                p.kind <> {FIRST} OR p.manifest = {NOBODY} AS strange
            FROM {pulses} p LEFT JOIN earlier e USING (ticket, seq)
            WHERE p.kind <> {AGAIN} AND {scope}
        ), placed AS (
            SELECT ticket, seq, at_ms, delta_ms, cum_ms, manifest, relay, kbytes,
                strange OR late_ms < -{rules.live_window_ms} AS strange,
                CASE WHEN late_ms <= {rules.live_window_ms} THEN at_ms + late_ms ELSE at_ms END AS time
            FROM body
        ), stepped AS (
            SELECT ticket, seq, at_ms, delta_ms, manifest, relay, kbytes, time,
                time - lag(time) OVER chain AS since, at_ms - lag(at_ms) OVER chain AS step,
                seq IS DISTINCT FROM lag(seq) OVER chain AS fresh,
                strange OR cum_ms - delta_ms < coalesce(lag(cum_ms) OVER chain, 0) AS strange
            FROM placed WINDOW chain AS (PARTITION BY ticket ORDER BY seq)
        )
        SELECT ticket, manifest, relay,
            coalesce(sum(kbytes), 0)::BIGINT AS kbytes,
            sum(delta_ms)::BIGINT AS claimed,
            coalesce(sum(delta_ms) FILTER (since <= {rules.gap_ms}), 0)::BIGINT AS ms,
            count(*) FILTER (since <= {rules.gap_ms} AND delta_ms > 0) AS pulses,
            coalesce(sum(delta_ms) FILTER (since > {rules.gap_ms}), 0)::BIGINT AS gap_ms,
            count(*) FILTER (since > {rules.gap_ms} AND delta_ms > 0) AS gap_pulses,
            coalesce(sum(delta_ms - step) FILTER (since <= {rules.gap_ms} AND delta_ms > step), 0)::BIGINT
                AS excess,
            min(at_ms) FILTER (since IS NULL) AS first_at,
            min(time) FILTER (since IS NULL) AS first_time,
            min(delta_ms) FILTER (since IS NULL) AS first_delta,
            max(at_ms) AS last_at,
            max(seq::BIGINT * {SEQ_SHIFT} + time + {TIME_SHIFT}) AS last_key,
            bool_or(strange OR NOT fresh OR step < 0) AS strange
        FROM stepped GROUP BY ticket, manifest, relay
    """
