"""The rules of credit in set form: the queries by which DuckDB counts a month, bucket by bucket.

Most viewing is plain: the rules cut nothing of it, or cut it where one look at the pulse before is
enough (a gap, a first pulse). What is plain is summed here; everything else is named here and left
to ``credit``, whose walk through a device's pulses is the definition.

- A ticket is walked in order of its numbers (``walk``).
- A device's tickets follow one another; those without a gap between them are one **run**.
- A run is **hard** where its excess is over the slack (the wall might cut), where one title might pass
  the session cap, or where the account passes the cap of one of its days. ``credit_run`` walks it.
- An account is **odd** where anything is out of the ordinary: two bodies under a number, a clock that
  went back, sums that do not add up, pulses from the future, tickets side by side, unknown titles.
  All of it is judged by ``credit`` from the log.

Integers of 64 bits throughout: a ticket's times and kilobytes sum to far less than 2^63.
"""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.rules import DAY_MS, Rules
from ..pulses.rows import AGAIN, DOUBTFUL, FIRST

SEQ_SHIFT = 1 << 40
TIME_SHIFT = 1 << 39
"""How ``walk`` packs a pulse's number and time into one integer."""


class Scope(NamedTuple):
    """What a pass reads: buckets and ticket days (both ends included), and entries before ``size``."""

    first_bucket: int
    last_bucket: int
    first_day: int
    last_day: int
    size: int

    def sql(self, table: str = "") -> str:
        """Return it as a condition."""
        t = f"{table}." if table else ""
        return f"{self.reach(t)} AND {t}entry < {self.size}"

    def reach(self, t: str = "") -> str:
        """Return its buckets and days as a condition."""
        return (
            f"{t}bucket BETWEEN {self.first_bucket} AND {self.last_bucket} "
            f"AND {t}day BETWEEN {self.first_day} AND {self.last_day}"
        )


def ride(scope: Scope, rules: Rules) -> str:
    """Return each ticket in its place among the tickets of its device."""
    base = f"day::BIGINT * {DAY_MS}"
    return f"""
        CREATE OR REPLACE TEMP TABLE ride AS
        WITH whole AS (
            SELECT ticket, sum(claimed)::BIGINT AS claimed, sum(ms)::BIGINT AS ms,
                sum(excess)::BIGINT AS excess,
                min(first_at) AS first_at, min(first_time) AS first_time, min(first_delta) AS first_delta,
                max(last_at) AS last_at, max(last_key) % {SEQ_SHIFT} - {TIME_SHIFT} AS last_time,
                bool_or(strange OR t.manifest IS NULL) AS strange
            FROM walked LEFT JOIN titles t USING (manifest) GROUP BY ticket
        ), placed AS (
            SELECT ticket, account, device, day, tid, claimed, ms, excess, first_delta, strange,
                {base} + first_at AS first_at, {base} + first_time AS first_time,
                {base} + last_at AS last_at, {base} + last_time AS last_time
            FROM whole JOIN (SELECT * FROM tickets WHERE {scope.sql()}) USING (ticket)
        ), chained AS (
            SELECT *, lag(last_time) OVER device_ AS prev_time, lag(last_at) OVER device_ AS prev_at
            FROM placed WINDOW device_ AS (PARTITION BY account, device ORDER BY day, first_at, tid)
        ), entered AS (
            SELECT *,
                CASE WHEN prev_time IS NULL THEN 'start'
                    WHEN first_time - prev_time > {rules.gap_ms} THEN 'gap'
                    ELSE 'on' END AS entry,
                coalesce(prev_at > first_at, false) AS beside
            FROM chained
        )
        SELECT ticket, account, device, day, tid, claimed, ms, first_delta, entry, prev_time, prev_at,
            strange OR beside AS strange,
            CASE entry WHEN 'start' THEN least(first_delta, {rules.slack_ms}) WHEN 'gap' THEN 0
                ELSE first_delta END::BIGINT AS first_ms,
            excess + CASE entry WHEN 'start' THEN least(first_delta, {rules.slack_ms}) WHEN 'gap' THEN 0
                ELSE greatest(0, first_delta - (first_at - prev_at)) END AS excess,
            count_if(entry <> 'on') OVER (
                PARTITION BY account, device ORDER BY day, first_at, tid ROWS UNBOUNDED PRECEDING
            ) AS run
        FROM entered
    """


ODD = """
    CREATE OR REPLACE TEMP TABLE odd AS SELECT account FROM ride GROUP BY account HAVING bool_or(strange)
"""


def hard(rules: Rules) -> str:
    """Return the runs that ``credit_run`` walks, with where the device's earlier tickets ended."""
    return f"""
        CREATE OR REPLACE TEMP TABLE hard AS
        WITH full_days AS (
            SELECT account, day FROM ride GROUP BY ALL HAVING sum(claimed) > {rules.day_cap_ms}
        ), long_runs AS (
            SELECT account, device, run FROM ride
            GROUP BY ALL HAVING sum(ms + first_ms) > {rules.session_cap_ms}
        ), long_titles AS (
            SELECT account, device, run FROM (
                SELECT account, device, run, manifest,
                    sum(w.ms + CASE WHEN w.first_at IS NULL THEN 0 ELSE r.first_ms END) AS ms
                FROM ride r JOIN long_runs USING (account, device, run) JOIN walked w USING (ticket)
                GROUP BY ALL
            ) WHERE ms > {rules.session_cap_ms}
        ), runs AS (
            SELECT account, device, run FROM ride GROUP BY ALL HAVING sum(excess) > {rules.slack_ms}
            UNION SELECT account, device, run FROM long_titles
            UNION SELECT account, device, run FROM ride JOIN full_days USING (account, day)
        )
        SELECT account, device, run, ticket, tid, day,
            max(CASE WHEN entry = 'gap' THEN prev_time END) OVER whole AS prev_time,
            max(CASE WHEN entry = 'gap' THEN prev_at END) OVER whole AS prev_at
        FROM ride JOIN runs USING (account, device, run) ANTI JOIN odd USING (account)
        WINDOW whole AS (PARTITION BY account, device, run)
    """


def plain(first_day: int) -> str:
    """Return what the plain tickets from ``first_day`` on come to."""
    return f"""
        CREATE OR REPLACE TEMP TABLE plain AS
        SELECT account, day, manifest,
            w.ms + CASE WHEN w.first_at IS NULL THEN 0 ELSE r.first_ms END AS ms,
            w.pulses + CASE WHEN w.first_at IS NULL OR r.first_ms = 0 THEN 0 ELSE 1 END AS pulses,
            w.gap_ms + CASE WHEN w.first_at IS NULL OR entry <> 'gap' THEN 0 ELSE r.first_delta END AS gap_ms,
            w.gap_pulses + CASE WHEN w.first_at IS NULL OR entry <> 'gap' OR r.first_delta = 0 THEN 0
                ELSE 1 END AS gap_pulses,
            CASE WHEN w.first_at IS NULL OR entry <> 'start' THEN 0
                ELSE r.first_delta - r.first_ms END AS start_ms
        FROM ride r ANTI JOIN odd USING (account) ANTI JOIN (SELECT ticket FROM hard) USING (ticket)
        JOIN walked w USING (ticket)
        WHERE day >= {first_day}
    """


BY_TITLE = "SELECT manifest, account, sum(ms)::BIGINT AS ms FROM plain GROUP BY ALL HAVING sum(ms) > 0"
BY_DAY = """
    SELECT account, day, sum(ms)::BIGINT, sum(pulses)::BIGINT FROM plain GROUP BY ALL HAVING sum(ms) > 0
"""
CUT = """
    SELECT manifest, sum(gap_ms)::BIGINT, sum(gap_pulses)::BIGINT, sum(start_ms)::BIGINT,
        count_if(start_ms > 0)::BIGINT
    FROM plain WHERE gap_pulses > 0 OR start_ms > 0 GROUP BY manifest
"""


def brought(scope: Scope, first_day: int) -> str:
    """Return the kilobytes that relays brought of each title on each day of each account."""
    more = "".join(
        f" UNION ALL SELECT ticket, manifest, relay{n} AS relay, kbytes{n} AS kbytes FROM pulses "
        f"WHERE relay{n} IS NOT NULL AND kind = {FIRST} AND day >= {first_day} AND {scope.sql()}"
        for n in (2, 3, 4)
    )
    return f"""
        CREATE OR REPLACE TEMP TABLE brought AS
        WITH by_ticket AS (
            SELECT ticket, manifest, relay, kbytes FROM walked WHERE relay IS NOT NULL{more}
        )
        SELECT r.account, r.day, manifest, relay, sum(kbytes)::BIGINT AS kbytes
        FROM by_ticket JOIN ride r USING (ticket) ANTI JOIN odd USING (account)
        WHERE r.day >= {first_day} GROUP BY ALL
    """


FULL_TITLES = """
    CREATE OR REPLACE TEMP TABLE full_titles AS
    SELECT account, day, manifest, any_value(t.kbytes) AS room FROM brought b JOIN titles t USING (manifest)
    GROUP BY ALL HAVING sum(b.kbytes) > any_value(t.kbytes)
"""
ANY_FULL = "SELECT count(*) FROM full_titles"
BY_RELAY = """
    SELECT relay, day, sum(kbytes)::BIGINT
    FROM brought ANTI JOIN full_titles USING (account, day, manifest) GROUP BY ALL
"""


def capped_relays(scope: Scope) -> str:
    """Return kilobytes by relay where a title was brought more than whole: the latest are cut."""
    items = ", ".join(f"{{'slot': {n}, 'relay': relay{n}, 'kbytes': kbytes{n}}}" for n in (1, 2, 3, 4))
    return f"""
        WITH body AS (
            SELECT r.account, r.day, p.manifest, f.room, r.tid, p.at_ms, p.seq, unnest([{items}]) AS item
            FROM pulses p JOIN ride r USING (ticket)
            JOIN full_titles f ON f.account = r.account AND f.day = r.day AND f.manifest = p.manifest
            WHERE p.kind = {FIRST} AND {scope.sql("p")}
        ), summed AS (
            SELECT item.relay AS relay, day, item.kbytes AS kbytes, room,
                sum(item.kbytes) OVER (
                    PARTITION BY account, day, manifest ORDER BY at_ms, tid, seq, item.slot
                    ROWS UNBOUNDED PRECEDING
                ) - item.kbytes AS before
            FROM body WHERE item.relay IS NOT NULL
        )
        SELECT relay, day, sum(least(kbytes, greatest(0, room - before)))::BIGINT FROM summed GROUP BY ALL
    """


def bodies(scope: Scope, then: int, tickets: str) -> str:
    """Return every body under ``tickets``, account by account, for ``credit`` to judge.

    ``then_late`` is the delay as the first ``then`` entries tell it, null where they lack the body.
    """
    return f"""
        WITH copied AS (
            SELECT ticket, seq, min(late_ms) AS late_ms, min(late_ms) FILTER (entry < {then}) AS then_late
            FROM pulses WHERE kind = {AGAIN} AND {scope.sql()} GROUP BY ALL
        )
        SELECT t.account, t.device, t.run, t.prev_time, t.prev_at, t.tid, t.day, seq, p.at_ms, p.cum_ms,
            p.delta_ms, p.state, p.manifest, least(p.late_ms, coalesce(c.late_ms, p.late_ms)) AS late_ms,
            CASE WHEN p.entry < {then} THEN least(p.late_ms, coalesce(c.then_late, p.late_ms)) END
                AS then_late,
            relay1, kbytes1, relay2, kbytes2, relay3, kbytes3, relay4, kbytes4
        FROM pulses p JOIN ({tickets}) t USING (ticket) LEFT JOIN copied c USING (ticket, seq)
        WHERE p.kind <> {AGAIN} AND {scope.sql("p")}
        ORDER BY t.account, t.device, t.run
    """


def hard_bodies(scope: Scope) -> str:
    """Return the bodies of hard runs as ``bodies`` does, but for who brought them; they are read once."""
    return f"""
        WITH own AS MATERIALIZED (
            SELECT t.account, t.device, t.run, t.prev_time, t.prev_at, t.tid, t.day, ticket, seq, p.at_ms,
                p.cum_ms, p.delta_ms, p.state, p.manifest, p.late_ms, p.kind
            FROM pulses p JOIN hard t USING (ticket) WHERE {scope.sql("p")}
        ), copied AS (
            SELECT ticket, seq, min(late_ms) AS late_ms FROM own WHERE kind = {AGAIN} GROUP BY ALL
        )
        SELECT account, device, run, prev_time, prev_at, tid, day, seq, at_ms, cum_ms, delta_ms, state,
            manifest, least(own.late_ms, coalesce(c.late_ms, own.late_ms)) AS late_ms, NULL AS then_late
        FROM own LEFT JOIN copied c USING (ticket, seq)
        WHERE kind <> {AGAIN} ORDER BY account, device, run
    """


def busiest_relay(scope: Scope) -> str:
    """Return the most kilobytes that any relay is said to have brought on one day, nothing cut."""
    more = " UNION ALL ".join(
        f"SELECT relay{n} AS relay, day, kbytes{n} AS kbytes FROM pulses "
        f"WHERE relay{n} IS NOT NULL AND {scope.sql()}"
        for n in (1, 2, 3, 4)
    )
    return f"SELECT max(kbytes) FROM (SELECT sum(kbytes)::BIGINT AS kbytes FROM ({more}) GROUP BY relay, day)"


def changed_tickets(scope: Scope) -> str:
    """Return the tickets of the changed accounts that ``bodies`` can tell."""
    return f"""
        SELECT ticket, account, device, tid, day, 0 AS run, NULL::BIGINT AS prev_time, NULL::BIGINT AS prev_at
        FROM tickets SEMI JOIN (SELECT account FROM changed WHERE NOT strange) USING (account)
        WHERE {scope.sql()}
    """


def changed(scope: Scope, then: int) -> str:
    """Return the accounts that entries from ``then`` on add to, each odd one marked."""
    return f"""
        CREATE OR REPLACE TEMP TABLE changed AS
        SELECT account, bool_or(kind NOT IN ({FIRST}, {AGAIN}) OR title IS NULL) AS strange
        FROM (
            SELECT t.account, p.kind, titles.manifest AS title, p.entry
            FROM pulses p JOIN tickets t USING (ticket) LEFT JOIN titles ON titles.manifest = p.manifest
            WHERE {scope.sql("p")}
        ) GROUP BY account HAVING max(entry) >= {then}
    """


def entries(scope: Scope, accounts: str) -> str:
    """Return where the entries lie that hold anything of ``accounts``, in order."""
    return f"""
        WITH held AS (
            SELECT ticket, entry FROM tickets SEMI JOIN ({accounts}) USING (account) WHERE {scope.sql()}
        )
        SELECT entry, segment, start FROM frames SEMI JOIN (
            SELECT entry FROM held
            UNION SELECT p.entry FROM pulses p SEMI JOIN held USING (ticket) WHERE {scope.sql("p")}
        ) USING (entry) ORDER BY entry
    """


def stored(scope: Scope) -> str:
    """Return how many distinct pulses are stored under each ticket."""
    return f"""
        SELECT tid, coalesce(n, 0)::BIGINT FROM (SELECT tid, ticket FROM tickets WHERE {scope.sql()})
        LEFT JOIN (
            SELECT ticket, count(DISTINCT seq) AS n FROM pulses
            WHERE kind NOT IN ({AGAIN}, {DOUBTFUL}) AND {scope.sql()} GROUP BY ticket
        ) USING (ticket)
    """


def doubtful(scope: Scope) -> str:
    """Return the accounts with bodies that are not shown to be authentic."""
    return f"""
        SELECT DISTINCT account FROM tickets SEMI JOIN (
            SELECT ticket FROM pulses WHERE kind = {DOUBTFUL} AND {scope.sql()}
        ) USING (ticket)
    """


def named(pulses: str, then: int, size: int) -> str:
    """Return the accounts that entries from ``then`` to before ``size`` name, with the first day of each."""
    return f"""
        SELECT account, min(t.day)::INTEGER FROM tickets t SEMI JOIN (
            SELECT ticket FROM {pulses} WHERE entry >= {then} AND entry < {size}
        ) USING (ticket) GROUP BY account
    """


def reaching(first: int, since: int) -> str:
    """Return the accounts of which a walk that began on day ``since`` does not tell day ``first`` for sure.

    The odd ones, and where a device's first run goes on until then: it may have begun before.
    """
    return f"""
        SELECT account FROM odd UNION
        SELECT account FROM ride r WHERE run = 1 AND day >= {first} AND EXISTS (
            SELECT 1 FROM tickets t
            WHERE t.account = r.account AND t.device = r.device AND t.day < {since}
        )
    """
