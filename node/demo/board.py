"""The board: what a person watching the demo sees; a live table on a terminal, lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

LINE_EVERY_S = 4.0


class Board:
    """Shows notes as they come and, while the film plays, one table that keeps itself fresh."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._told_at = 0.0

    def note(self, text: str) -> None:
        """Say one thing that happened."""
        self._console.print(text, markup=False)

    def show(self, status: Mapping[str, Any], player: Mapping[str, Any]) -> None:
        """Show the node's status and the player's state."""
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, refresh_per_second=5)
                self._live.start()
            self._live.update(_table(status, player))
        elif time.monotonic() - self._told_at >= LINE_EVERY_S:
            self._told_at = time.monotonic()
            tiers = ", ".join(f"{t['name']} {t['bytes'] / 1e6:.1f} MB" for t in status["tiers"])
            self.note(
                f"{player['position_s']:5.1f} s  from {status['tier_in_use'] or '-':9}  "
                f"buffer {player['buffered_s']:.1f} s  {tiers}  pulses {status['pulses']['signed']}"
            )

    def close(self) -> None:
        """Stop the live table, leaving its last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def addresses(self, result: Mapping[str, Any]) -> None:
        """Print where everything of a served demo is."""
        urls = result["urls"]
        self.note(f"Everything is up. Film: {result['film']['title']}")
        self.note(f"  player page     {urls['player']}")
        self.note(f"  HLS address     {urls['watch_hls']}   (mpv, VLC, ffplay)")
        self.note(f"  origin          {urls['origin']}")
        for relay in urls["relays"]:
            self.note(f"  relay           {relay}")
        for name, page in zip(result["homes"], urls["pages"], strict=True):
            self.note(f"  {name + ' page':<15} {page}")
        self.note(f"Commands work too: farcast status --home {result['homes']['node']}")
        self.note("Ctrl-C ends it all.")

    def verdict(self, result: Mapping[str, Any], failures: Sequence[str]) -> None:
        """Print how it went: figures first, then what did not hold."""
        self.close()
        table = Table(title=f"{result['film']['title']}: four tiers, one film", box=None, pad_edge=False)
        for column in ("tier", "blocks", "bytes", "rejected"):
            table.add_column(column, justify="left" if column == "tier" else "right")
        for tier in result["tiers"]:
            table.add_row(tier["name"], str(tier["blocks"]), f"{tier['bytes']:,}", str(tier["rejected"]))
        self._console.print(table)
        play, pulses, money = result["playback"], result["pulses"], result["settlement"]
        self.note(
            f"playback    start-up {play['startup_ms']} ms, stall {play['stall_ms']} ms, "
            f"{play['verified']} of {play['segments']} segments byte-equal"
        )
        by_path = ", ".join(f"{way} {count}" for way, count in pulses["by_path"].items())
        self.note(f"pulses      {pulses['signed']} signed, {pulses['accepted']} accepted ({by_path})")
        paid = sum(line["cents"] for line in money["payouts"])
        self.note(
            f"settlement  {_cents(money['revenue_cents'])} = costs {_cents(money['costs_cents'])} + reserve "
            f"{_cents(money['reserve_cents'])} + paid {_cents(paid)} + held {_cents(money['held_cents'])} + "
            f"carried over {_cents(money['carried_cents'])}"
        )
        check = result["verify"]
        self.note(
            f"report      {'verifies' if check['ok'] else 'DOES NOT verify'}; with one byte changed it is "
            f"{'refused' if check['tampered_refused'] else 'NOT refused'}"
        )
        for failure in failures:
            self.note(f"NOT HELD    {failure}")
        self.note(f"{'Failed' if failures else 'Everything held'} after {result['wall_s']} s")


def _cents(amount: int) -> str:
    return f"{amount // 100}.{amount % 100:02}"


def _table(status: Mapping[str, Any], player: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{player['position_s']:.1f} of {player['duration_s']:.1f} s", box=None, pad_edge=False
    )
    for column in ("tier", "sources", "blocks", "bytes"):
        table.add_column(column, justify="left" if column == "tier" else "right")
    for tier in status["tiers"]:
        used = " <" if tier["name"] == status["tier_in_use"] else ""
        table.add_row(tier["name"] + used, str(tier["sources"]), str(tier["blocks"]), f"{tier['bytes']:,}")
    table.caption = (
        f"buffer {player['buffered_s']:.1f} s, stall {player['stall_ms']} ms, "
        f"failovers {len(status['failovers'])}, pulses {status['pulses']['signed']} "
        f"({status['pulses']['waiting']} on their way)"
    )
    return table
