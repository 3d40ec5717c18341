"""The scenes: one evening in which the tiers go away one after another while the film plays."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...protocol.errors import FarcastError
from .board import Board
from .cast import HEARTBEAT_S, RELAYS, Cast
from .player import Playback, Player

CDN_HANGS, CDN_DIES, RELAYS_DIE, NEIGHBOUR_DIES = 0.17, 0.30, 0.42, 0.66
"""When each tier goes, as a fraction of the film."""
CARRIED_BY = 0.72
"""Where in the film the neighbour goes at the latest, its uplink having brought a pulse or not."""
CAROUSEL_SPARE_S = 8.0
"""The carousel is paced to need so long still when the neighbour goes; then it hurries."""
CAROUSEL_HURRY_S = 2.5
PACE_ROUNDS, RATE_MIN_BPS = 4, 100_000
NEEDED_SHARE = 0.8 / 1.03
"""Of a generation's cycle, what a receiver that loses nothing needs: the rest repairs 20 % loss."""
HOME_TIMEOUT_S = 60.0
QUIET_TIMEOUT_S = 3.0
QUIET_AHEAD_S = 0.4
"""A sender is stopped only where the player asks for nothing for so long."""
REVENUE_CENTS, COST_CENTS = 10_000, 1_999
POLL_S = 0.25


class Evening:
    """Plays the film, raises and lowers the tiers, and gathers what happened."""

    def __init__(self, cast: Cast, board: Board) -> None:
        self._cast = cast
        self._board = board
        self._sent: dict[str, int] = {}
        self.failures: list[str] = []

    async def play(self) -> tuple[Playback, dict[str, Any]]:
        """Play from start to end while the tiers go; returns the playback and the node's status after it."""
        cast = self._cast
        found = await asyncio.to_thread(cast.command, "play", cast.title, "--home", str(cast.home("node")))
        player = Player(
            found["watch_hls"], found["cmcd"], title=cast.title, speed=cast.speed, event_s=float(HEARTBEAT_S)
        )
        playing = asyncio.ensure_future(player.play())
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(player))
                tasks.create_task(self._scenes(player, playing))
                playback = await asyncio.shield(playing)
                watching.cancel()
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await playing
            self._board.close()
        status = await asyncio.to_thread(cast.call, "node", "GET", "/api/status")
        self._sent["satellite"] = await asyncio.to_thread(cast.sent_bytes, "satellite")
        return playback, status

    async def _scenes(self, player: Player, playing: asyncio.Future[Playback]) -> None:
        """Take the tiers away, each at its place in the film."""
        cast, troupe = self._cast, self._cast.troupe
        until = self._until_position
        await until(player, playing, 0.01)
        length_s = player.duration_s / cast.speed
        paced_s = length_s * NEIGHBOUR_DIES + CAROUSEL_SPARE_S
        is_long = await self._pace(paced_s) > 1
        if is_long:  # several generations: the first must not bring all that the neighbour is to bring
            await asyncio.to_thread(cast.call, "origin", "POST", "/api/origin/uplink", {"on": False})
        await until(player, playing, CDN_HANGS)
        await self._end(player, "cdn", ["cdn"], signal.SIGSTOP)
        self._board.note("the CDN hangs (SIGSTOP)")
        await until(player, playing, CDN_DIES)
        await asyncio.to_thread(troupe.kill, "cdn")
        self._board.note("the CDN is killed")
        await until(player, playing, RELAYS_DIE)
        await asyncio.to_thread(cast.call, "node", "POST", "/api/direct", {"on": False})
        await self._pulse_in_spool()
        await self._end(player, "relay", RELAYS, signal.SIGKILL)
        self._board.note("both relays are killed, one with pulses in its spool")
        if is_long:
            await self._pace(paced_s - player.position_s / cast.speed)
        await until(player, playing, NEIGHBOUR_DIES)
        await self._carried(player)
        await self._end(player, "mesh", ["neighbour"], signal.SIGKILL)
        self._board.note("the LAN neighbour is killed; only the satellite is left")
        await self._pace(CAROUSEL_HURRY_S)

    async def _until_position(
        self, player: Player, playing: asyncio.Future[Playback], fraction: float
    ) -> None:
        while player.duration_s == 0 or player.position_s < player.duration_s * fraction:
            if playing.done():
                playing.result()
                return
            await asyncio.sleep(0.05)

    async def _watch(self, player: Player) -> None:
        while True:
            with contextlib.suppress(FarcastError):
                status = await asyncio.to_thread(self._cast.call, "node", "GET", "/api/status")
                self._board.show(
                    status,
                    {
                        "position_s": player.position_s,
                        "duration_s": player.duration_s,
                        "buffered_s": player.buffered_s,
                        "stall_ms": player.stall_ms,
                    },
                )
            await asyncio.sleep(POLL_S)

    async def _pace(self, due_s: float) -> int:
        """Set the carousel's rate so that a receiver has the title in ``due_s``; returns its generations.

        The head's share depends on the rate, so the rate is set and looked at again a few times.
        """
        wish: dict[str, object] = {"on": True}
        generations = 0
        for _ in range(PACE_ROUNDS):
            air = await asyncio.to_thread(self._cast.call, "origin", "POST", "/api/origin/uplink", wish)
            rows = [row for row in air["generations"] if row["lane"] == "title"]
            generations = len(rows)
            last = max(rows, key=lambda row: row["completes_in_s"])
            cycle_s = air["title_cycle_s"] * last["length"] / sum(row["length"] for row in rows)
            left_s = max(last["completes_in_s"] - cycle_s * (1 - NEEDED_SHARE), 0.0)
            wish["rate_bps"] = max(round(air["rate_bps"] * left_s / due_s), RATE_MIN_BPS)
        return generations

    async def _end(self, player: Player, tier: str, names: Sequence[str], how: signal.Signals) -> None:
        """Read the senders' own counters and stop them; the node stands still from the one to the other."""
        await self._quiet(player, names)
        troupe = self._cast.troupe
        troupe.signal("node", signal.SIGSTOP)
        try:
            self._sent[tier] = await asyncio.to_thread(self._cast.sent_bytes, *names)
            for name in names:
                troupe.signal(name, how)
        finally:
            troupe.signal("node", signal.SIGCONT)
        if how is signal.SIGKILL:
            for name in names:
                await asyncio.to_thread(troupe.kill, name)

    async def _quiet(self, player: Player, names: Sequence[str]) -> None:
        """Wait for a moment in which nothing is on its way: no answer is cut that a player waits for."""
        deadline = asyncio.get_running_loop().time() + QUIET_TIMEOUT_S
        last = -1
        while asyncio.get_running_loop().time() < deadline:
            status = await asyncio.to_thread(self._cast.call, "node", "GET", "/api/status")
            sent = await asyncio.to_thread(self._cast.sent_bytes, *names)
            if sent == last and not status["blocks_waiting"] and player.quiet_s > QUIET_AHEAD_S:
                return
            last = sent
            await asyncio.sleep(0.05)

    async def _pulse_in_spool(self) -> None:
        """Wait until a relay holds a pulse that no batch has taken home yet."""
        deadline = asyncio.get_running_loop().time() + HEARTBEAT_S * 1.5
        while asyncio.get_running_loop().time() < deadline:
            for name in RELAYS:
                status = await asyncio.to_thread(self._cast.call, name, "GET", "/api/status")
                if status["pulses_waiting"] > 0:
                    return
            await asyncio.sleep(0.1)
        self.failures.append("no relay held a pulse when the relays were killed")

    async def _carried(self, player: Player) -> None:
        """Wait until the neighbour's uplink brought a pulse to the origin."""
        while player.position_s < player.duration_s * CARRIED_BY:
            counts = await asyncio.to_thread(self._cast.call, "origin", "GET", "/api/origin/pulses")
            if counts["by_path"]["mesh"] > 0:
                return
            await asyncio.sleep(0.1)

    def check_senders(self, tiers: list[dict[str, Any]]) -> None:
        """Verified bytes per tier may not exceed what the senders say they sent."""
        for tier in tiers:
            sent = self._sent.get(tier["name"], 0)
            if tier["bytes"] > sent:
                self.failures.append(
                    f"{tier['name']} is said to have brought {tier['bytes']} bytes, its senders sent {sent}"
                )
            if tier["blocks"] == 0:
                self.failures.append(f"{tier['name']} brought no block")


async def evening(cast: Cast, board: Board) -> tuple[dict[str, Any], list[str]]:
    """Run the whole evening; returns the result and what did not hold."""
    scenes = Evening(cast, board)
    books = (("revenue", REVENUE_CENTS), ("cost", COST_CENTS))
    await asyncio.gather(*(asyncio.to_thread(cast.book, kind, cents) for kind, cents in books))
    playback, status = await scenes.play()
    board.note("the film is over; the relays come back and the uplink returns")
    await asyncio.gather(*(asyncio.to_thread(cast.start_relay, name, batch_s=2) for name in RELAYS))
    await asyncio.to_thread(cast.call, "node", "POST", "/api/direct", {"on": True})
    pulses = await _pulses_home(cast)
    status = {**status, "pulses": pulses["node"]}
    failures = scenes.failures
    scenes.check_senders(status["tiers"])
    verified = _verified(cast, playback)
    if verified != playback.segments:
        failures.append(f"{playback.segments - verified} segments differ from what was published")
    if playback.segments != cast.published["playback_segments"]:
        expected = cast.published["playback_segments"]
        failures.append(f"{playback.segments} segments were played, {expected} make up the film")
    if playback.stall_ms:
        failures.append(f"playback stalled for {playback.stall_ms} ms")
    counts = pulses["origin"]
    if counts["accepted"] != pulses["signed"]:
        failures.append(f"{pulses['signed']} pulses were signed, {counts['accepted']} accepted")
    for way in ("relay", "mesh"):
        if not counts["by_path"][way]:
            failures.append(f"no pulse came home by {way}")
    board.note("settling the month")
    settlement, verify = await asyncio.to_thread(_settle, cast, failures)
    result: dict[str, Any] = {
        "film": cast.film_facts(),
        "tiers": [
            {key: tier[key] for key in ("name", "blocks", "bytes", "rejected")} for tier in status["tiers"]
        ],
        "failovers": status["failovers"],
        "playback": {
            "startup_ms": playback.startup_ms,
            "stall_ms": playback.stall_ms,
            "segments": playback.segments,
            "verified": verified,
        },
        "pulses": {
            "signed": pulses["signed"],
            "accepted": counts["accepted"],
            "duplicate": counts["duplicate"],
            "rejected": sum(counts["rejected"].values()),
            "by_path": counts["by_path"],
        },
        "settlement": settlement,
        "verify": verify,
    }
    return result, failures


async def _pulses_home(cast: Cast) -> dict[str, Any]:
    """Wait until every pulse the node signed is acked; returns the counts of both ends."""
    deadline = asyncio.get_running_loop().time() + HOME_TIMEOUT_S
    while True:
        node = (await asyncio.to_thread(cast.call, "node", "GET", "/api/status"))["pulses"]
        origin = await asyncio.to_thread(cast.call, "origin", "GET", "/api/origin/pulses")
        late = asyncio.get_running_loop().time() > deadline
        if late or (node["waiting"] == 0 and origin["accepted"] >= node["signed"] > 0):
            return {"node": node, "origin": origin, "signed": node["signed"]}
        await asyncio.sleep(POLL_S)


def _verified(cast: Cast, playback: Playback) -> int:
    """Count the segments whose bytes equal the published files'."""
    published = cast.encoded()
    return sum(
        published.get(path) == digest for path, digest in playback.digests.items() if path.endswith(".m4s")
    )


def _settle(cast: Cast, failures: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settle the running month as of now, check the sum, verify the report and a tampered copy of it."""
    now = datetime.now(UTC)
    home = str(cast.home("origin"))
    month = f"{now:%Y-%m}"
    found = cast.command(
        "origin",
        "settle",
        "--month",
        month,
        "--as-of",
        f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "--home",
        home,
        name="origin",
    )
    report = cast.command("origin", "report", "--month", month, "--home", home, name="origin")
    money = {
        key: found[key]
        for key in (
            "revenue_cents", "costs_cents", "relay_pay_cents", "reserve_cents", "pool_cents",
            "held_cents", "carried_cents", "payouts",
        )
    }  # fmt: skip
    paid = sum(line["cents"] for line in money["payouts"])
    parts = (
        money["costs_cents"] + money["reserve_cents"] + paid + money["held_cents"] + money["carried_cents"]
    )
    if parts != money["revenue_cents"]:
        failures.append(f"revenue is {money['revenue_cents']} cents, its parts sum to {parts}")
    if not paid:
        failures.append("nobody was paid")
    folder = Path(report["folder"])
    root = str(cast.folder / "root.json")
    cast.save_root(Path(root))
    copy = cast.folder / "tampered"
    shutil.copytree(folder, copy)
    victim = copy / "report.json"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with ThreadPoolExecutor(max_workers=2) as pool:
        verifying, tampering = (pool.submit(_verifies, cast, each, root) for each in (folder, copy))
    verified, refused = verifying.result(), not tampering.result()
    if not verified:
        failures.append("the report does not verify")
    if not refused:
        failures.append("the report still verifies after one byte of it was changed")
    return money, {"ok": verified, "tampered_refused": refused}


def _verifies(cast: Cast, folder: Path, root: str) -> bool:
    try:
        cast.command("verify", str(folder), "--root", root)
    except FarcastError:
        return False
    return True
