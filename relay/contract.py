"""The operator's contract at work: rates by time of day, the month's volume, pause; and who must wait.

The cores decide (``volume``, ``period``, the governor's bucket); this shell feeds them the traffic of every
second, keeps what must survive in ``contract.json``, and tells the servers what holds now.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ..node.http.governor import Bucket, Rules
from ..node.settings import Contract as Table
from ..protocol.errors import RefusedError
from .contractfile import ContractFile, Kept
from .period import QuietHours
from .volume import Terms, Volume

State = Literal["serving", "paused", "hibernating"]

TICK_S = 1.0
KEEP_S = 20.0
"""The longest that counted bytes are only in memory; a kill loses at most these seconds."""
KEEP_SHARE = 200
"""And at most this part of the month's volume."""
PAUSED_RETRY_S = 600
FILL_WAIT_S = 15.0
"""A fill that the rate down would hold up for longer is refused instead."""
SPEED_S = 10
"""Bytes per second are a mean over so many seconds."""


class Traffic(NamedTuple):
    """Bytes that went to and came from the Internet since the box started, LAN left out."""

    up_bytes: int
    down_bytes: int


class Rates(NamedTuple):
    """What holds now, bits per second; 0 is no limit."""

    up_bps: int
    down_bps: int


class Contract:
    """Keeps one relay to its operator's terms; ``chance`` draws in [0, 1)."""

    def __init__(
        self,
        home: Path,
        table: Table,
        clock_ms: Callable[[], int],
        chance: Callable[[], float],
        traffic: Callable[[], Traffic],
    ) -> None:
        """Go on where the last run ended; raises ``UsageError`` where its file cannot be read."""
        self._file = ContractFile(home)
        self._clock_ms = clock_ms
        self._chance = chance
        self._read = traffic
        self.table = table
        self._zone = zone_of(table.zone)
        self._quiet = QuietHours(table.quiet_hours, self._zone)
        kept = self._file.read()
        self.paused_ms = kept.paused_ms
        self.volume = Volume(self._terms(), clock_ms(), kept.usage)
        self._down: Bucket | None = None
        self._seen = traffic()
        self._speeds: list[Traffic] = [self._seen]
        self._kept = kept
        self._kept_at = time.monotonic()
        self._kept_bytes = self.volume.used_bytes
        self._keeping = asyncio.Lock()
        self.changed: Callable[[], None] = lambda: None
        """Called when state, rates or terms have become others."""
        self._last = self._holds()
        self._limit_fills(self.rates().down_bps / 8)

    @property
    def state(self) -> State:
        """How the relay stands to its contract now."""
        if self.paused_ms:
            return "paused"
        return "serving" if self.volume.state(self._clock_ms()) == "awake" else "hibernating"

    @property
    def traffic(self) -> Traffic:
        """What the box carried since it started."""
        return self._seen

    def quiet(self, now_ms: int | None = None) -> bool:
        """Say whether this is a quiet hour, in which titles may be fetched ahead."""
        return self._quiet.covers(self._clock_ms() if now_ms is None else now_ms)

    def rates(self) -> Rates:
        """Return the rates of this hour."""
        table = self.table
        if not self.quiet():
            return Rates(table.rate_up_bps, table.rate_down_bps)
        return Rates(
            table.quiet_rate_up_bps or table.rate_up_bps, table.quiet_rate_down_bps or table.rate_down_bps
        )

    @property
    def retry_after_s(self) -> float:
        """When a client that is not served now should come back."""
        return PAUSED_RETRY_S if self.paused_ms else self._wakes_in_s()

    def rules(self) -> Rules:
        """Return what the servers keep now; once the last of the volume is gone, nothing goes out."""
        table, up_bytes_s = self.table, self.rates().up_bps // 8 or None
        return Rules(
            upload_bytes_s=1 if self.volume.exhausted else up_bytes_s,
            connections=table.connections,
            client_connections=table.client_connections or None,
            client_requests_s=table.client_requests_s or None,
            client_burst=table.client_requests_s or Rules().client_burst,
        )

    def refusal(self) -> RefusedError | None:
        """Return why nothing is begun now, neither serving nor filling; None where it is."""
        match self.state:
            case "serving":
                return None
            case "paused":
                message = "the operator has paused this relay; ask another one"
            case "hibernating":
                message = "this relay has used its month's volume and sleeps; ask another one"
        return RefusedError(message, status=503, retry_after_s=self.retry_after_s, reason=self.state)

    async def fill(self) -> None:
        """Wait until the rate down lets a fill begin.

        Raises:
            RefusedError: 503 where that would take too long, and while the volume is spent.

        """
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        wait_s = self._down.owed_s(time.monotonic()) if self._down else 0.0
        if wait_s > FILL_WAIT_S:
            message = "this relay fetches as fast as its operator lets it already; ask another one"
            raise RefusedError(message, status=503, retry_after_s=wait_s, reason="rate_down")
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def filled(self, size_bytes: int) -> None:
        """Hear that so many bytes came from the Internet."""
        if self._down is not None:
            self._down.fill(time.monotonic())
            self._down.level -= size_bytes

    def change(self, table: Table) -> None:
        """Hold to other terms from now on."""
        self.table = table
        self._zone = zone_of(table.zone)
        self._quiet = QuietHours(table.quiet_hours, self._zone)
        self.volume.terms = self._terms()
        self.volume.tick(self._clock_ms(), self._chance(), serving=not self.paused_ms)
        self._tell(always=True)

    async def tick(self) -> None:
        """Count what the last second carried, and keep it now and then; called every ``TICK_S``."""
        traffic = self._read()
        self.volume.count(traffic.up_bytes - self._seen.up_bytes, traffic.down_bytes - self._seen.down_bytes)
        self._seen = traffic
        self._speeds = [*self._speeds[-SPEED_S:], traffic]
        self.volume.tick(self._clock_ms(), self._chance(), serving=not self.paused_ms)
        self._tell()
        unkept = abs(self.volume.used_bytes - self._kept_bytes)
        limit = self.volume.terms.limit_bytes
        late = time.monotonic() - self._kept_at >= KEEP_S
        if (late and (unkept or self._kept.usage is None)) or (limit and unkept * KEEP_SHARE >= limit):
            await self.keep()

    async def pause(self) -> None:
        """Begin nothing new; what is under way goes on to its end. Holds across restarts."""
        self.paused_ms = self.paused_ms or self._clock_ms()
        self._tell()
        await self.keep()

    async def resume(self) -> None:
        """Serve again."""
        self.paused_ms = 0
        self._tell()
        await self.keep()

    async def keep(self) -> None:
        """Write down what must survive."""
        async with self._keeping:
            kept = Kept(self.paused_ms, msgspec.structs.replace(self.volume.usage))
            used = self.volume.used_bytes
            await asyncio.to_thread(self._file.write, kept)
            self._kept, self._kept_bytes, self._kept_at = kept, used, time.monotonic()

    def speed(self) -> Rates:
        """Return bits per second of the last seconds."""
        first, last, seconds = self._speeds[0], self._speeds[-1], max(1, len(self._speeds) - 1) * TICK_S
        return Rates(
            round((last.up_bytes - first.up_bytes) * 8 / seconds),
            round((last.down_bytes - first.down_bytes) * 8 / seconds),
        )

    def facts(self) -> dict[str, object]:
        """Say how it stands, as status, page and ``--json`` show it."""
        usage, rates, now_ms = self.volume.usage, self.rates(), self._clock_ms()
        return {
            "state": self.state,
            "paused_since": self._date(self.paused_ms) if self.paused_ms else None,
            "used_bytes": self.volume.used_bytes,
            "up_bytes": usage.up_bytes,
            "down_bytes": usage.down_bytes,
            "limit_bytes": self.table.volume_bytes,
            "remaining_bytes": self.volume.remaining_bytes,
            "resets": self._date(usage.end_ms),
            "wakes": self._date(self.volume.wakes_ms(now_ms)) if self.state == "hibernating" else None,
            "rate_up_bps": rates.up_bps,
            "rate_down_bps": rates.down_bps,
            "quiet": self.quiet(),
        }

    def _date(self, at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1_000, self._zone).isoformat(timespec="minutes")

    def _terms(self) -> Terms:
        table = self.table
        return Terms(table.volume_bytes, table.volume_counts, table.billing_day, self._zone)

    def _wakes_in_s(self) -> float:
        now_ms = self._clock_ms()
        return max(60.0, min(86_400.0, (self.volume.wakes_ms(now_ms) - now_ms) / 1_000))

    def _holds(self) -> tuple[State, Rates, bool]:
        return self.state, self.rates(), self.volume.exhausted

    def _limit_fills(self, bytes_s: float) -> None:
        if not bytes_s:
            self._down = None
        elif self._down is None or self._down.rate != bytes_s:
            self._down = Bucket(bytes_s, bytes_s, time.monotonic())

    def _tell(self, *, always: bool = False) -> None:
        now = self._holds()
        self._limit_fills(self.rates().down_bps / 8)
        if always or now != self._last:
            self._last = now
            self.changed()


def zone_of(name: str) -> tzinfo:
    """Return the zone ``name``; the machine's own for an empty one, UTC where that is not known."""
    name = name or os.environ.get("TZ", "").lstrip(":")
    if not name:
        place = str(Path("/etc/localtime").resolve())
        name = place.partition("/zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC
