"""The ration: keeps an allowance on disk, ahead of what is spent, so that no crash gives bytes back.

What is granted is written before it is spent, a little at a time; a box that dies has lost the rest of
that little, never won any. A request is set aside for the longest answer it may have and the grant grows
by that; once the answer is here and was short, the grant is written down smaller again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import LocalError, RefusedError
from ..home import write_whole
from .allowance import DAY_MS, Allowance, Record

GRANT_SHARE = 100
GRANT_LEAST_BYTES = 64 << 10
KEEP_S = 300.0
"""The clock is written down so often though nothing is spent."""


class Ration:
    """What a box may send and receive over its metered link today; ``proven_ms`` as in ``Allowance.look``."""

    def __init__(
        self,
        path: Path,
        daily_bytes: int,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on where the file ``path`` says; one that cannot be read counts as a day used up."""
        self._path = path
        self._clock_ms, self._now_s = clock_ms, now_s
        self.proven_ms: Callable[[], int] = int
        wall_ms = clock_ms()
        self._allowance = Allowance(daily_bytes, _read(path, daily_bytes, wall_ms), wall_ms, now_s())
        self._granted_bytes = self._allowance.spent_bytes
        self._kept_s = now_s()
        self._lock = asyncio.Lock()
        self._freed = asyncio.Event()
        self._spent = Counter(
            "farcast_node_metered_bytes",
            "Bytes over the metered link, by kind: blocks, or what comes first.",
            ["kind"],
            registry=registry,
        )
        self._refused = Counter(
            "farcast_node_metered_refusals", "Requests that today's budget had no room for.", ["kind"],
            registry=registry,
        )  # fmt: skip
        for kind in ("blocks", "first"):
            self._spent.labels(kind)
            self._refused.labels(kind)
        gauge = Gauge(
            "farcast_node_metered_left_bytes", "What today's budget leaves for blocks.", registry=registry
        )
        gauge.set_function(lambda: float(self._allowance.left_bytes(first=False)))

    @property
    def exhausted(self) -> bool:
        """Whether today's budget has no room for one more block, whatever is under way."""
        self._look()
        return self._allowance.unspent_bytes(first=False) < BLOCK_COST_BYTES

    @property
    def facts(self) -> dict[str, int]:
        """What page and status show."""
        self._look()
        return {"used_bytes": self._allowance.spent_bytes, "daily_bytes": self._allowance.daily_bytes}

    def sentence(self) -> str:
        """Say how today stands, in a few words."""
        used, daily = self.facts.values()
        return f"{used / 1e6:.0f} of {daily / 1e6:.0f} MB today"

    async def take(
        self, size_bytes: int, *, first: bool, least_bytes: int | None = None, wait_s: float = 0.0
    ) -> int:
        """Set aside what something may cost and return how much; ``settle`` it whatever becomes of it.

        Where there would be room but for what is under way, it waits up to ``wait_s`` for that. Near the
        end of a day it may be less than ``size_bytes``, not less than ``least_bytes``.

        Raises:
            RefusedError: 429 ``budget_spent`` where today has no room for it.
            LocalError: ``disk`` where the count cannot be kept.

        """
        end = asyncio.get_running_loop().time() + wait_s
        least_bytes = size_bytes if least_bytes is None else least_bytes
        while not (held := self._hold(size_bytes, least_bytes, first=first)):
            unspent = self._allowance.unspent_bytes(first=first)
            if least_bytes > unspent or asyncio.get_running_loop().time() >= end:
                self._refused.labels("first" if first else "blocks").inc()
                raise RefusedError(self._used_up(), status=429, retry_after_s=60, reason="budget_spent")
            self._freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._freed.wait()
        try:
            await self._grant(first=first)
        except BaseException:
            self._allowance.settle(held, 0)
            self._freed.set()
            raise
        return held

    def refusal(self) -> str:
        """Say why no block may be asked for over this link now; empty where one may."""
        return self._used_up() if self.exhausted else ""

    async def settle(self, held_bytes: int, spent_bytes: int, *, first: bool) -> None:
        """Say what it did cost; what was granted for a longer answer is given back."""
        self._allowance.settle(held_bytes, spent_bytes)
        self._spent.labels("first" if first else "blocks").inc(spent_bytes)
        self._freed.set()
        if not self._is_generous:
            return
        async with self._lock:
            if self._is_generous:
                # lowered before it is written: who spends more meanwhile sees it, and writes after this
                self._granted_bytes = self._allowance.used_bytes + self._ahead_bytes(first=first)
                with suppress(LocalError):  # the file says more than was spent, which is safe
                    await self._write(self._granted_bytes)

    async def keep(self) -> None:
        """Write the clock down now and then, so that time which passed is known after a crash."""
        self._look()
        if self._now_s() - self._kept_s >= KEEP_S:
            async with self._lock:
                await self._write(max(self._granted_bytes, self._allowance.used_bytes))

    async def close(self) -> None:
        """Write down what was really spent."""
        async with self._lock:
            await self._write(self._allowance.used_bytes)

    def _used_up(self) -> str:
        return (
            f"today's {self._allowance.daily_bytes / 1e6:.0f} MB of this link are used up; what is here "
            "plays on, and the rest comes when a new day begins ([metered] daily_bytes)"
        )

    def _look(self) -> None:
        if self._allowance.look(self._clock_ms(), self._now_s(), self.proven_ms()):
            self._granted_bytes = 0  # nothing of the new day is written down yet

    async def _grant(self, *, first: bool) -> None:
        """Have what is set aside written down before any of it is spent.

        Blocks are never granted of what is kept for checkpoint and pulses: a crash leaves that whole.
        """
        if self._allowance.used_bytes <= self._granted_bytes:
            return
        async with self._lock:
            used, day = self._allowance.used_bytes, self._allowance.day
            if used > self._granted_bytes:
                granted = used + self._ahead_bytes(first=first)
                await self._write(granted)
                if day == self._allowance.day:
                    self._granted_bytes = granted

    @property
    def _step_bytes(self) -> int:
        return max(self._allowance.daily_bytes // GRANT_SHARE, GRANT_LEAST_BYTES)

    def _ahead_bytes(self, *, first: bool) -> int:
        """Return how much is granted beyond what is used: of what is kept for the first only a little."""
        ahead = min(self._step_bytes, self._allowance.left_bytes(first=False))
        return max(ahead, min(GRANT_LEAST_BYTES, self._allowance.left_bytes(first=True))) if first else ahead

    @property
    def _is_generous(self) -> bool:
        """Whether a crash now would cost more than a step, or much of what is kept for the first."""
        surplus = self._granted_bytes - self._allowance.used_bytes
        kept_from = self._allowance.daily_bytes - self._allowance.kept_bytes
        return surplus > 2 * (GRANT_LEAST_BYTES if self._granted_bytes > kept_from else self._step_bytes)

    def _hold(self, size_bytes: int, least_bytes: int, *, first: bool) -> int:
        """Set aside what was asked for, or all that is unspent; 0 where that is held or too little."""
        self._look()
        size_bytes = min(size_bytes, self._allowance.unspent_bytes(first=first))
        enough = size_bytes >= least_bytes and self._allowance.hold(size_bytes, first=first)
        return size_bytes if enough else 0

    async def _write(self, spent_bytes: int) -> None:
        self._kept_s = self._now_s()
        data = msgspec.json.encode(self._allowance.record(spent_bytes)._asdict())
        try:
            await asyncio.to_thread(write_whole, self._path, data)
        except OSError as error:
            message = f"what the metered link has cost cannot be written to {self._path}: {error.strerror}"
            raise LocalError(message, reason="disk") from error


BLOCK_COST_BYTES = (2 << 20) + (2 << 20) // 16
"""What one block may cost at most, headers of the wire included."""


class _File(msgspec.Struct, frozen=True):
    day: int
    spent_bytes: int
    wall_ms: int
    elapsed_s: float
    even: bool


def _read(path: Path, daily_bytes: int, wall_ms: int) -> Record | None:
    """Read the file; None where there is none, a day used up where it is damaged."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        return Record(wall_ms // DAY_MS, daily_bytes, wall_ms, 0.0, False)
    return Record(found.day, max(found.spent_bytes, 0), found.wall_ms, max(found.elapsed_s, 0.0), found.even)
