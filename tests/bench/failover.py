"""A tier that hangs, as a viewer sees it; and how soon a film begins.

``failover_hang``: the same hls.js with its own defaults plays the same film, in turn through the gateway
and, without a node, by content steering over redundant variants at CDN and relay; as it plays with
six seconds in its buffer the CDN hangs. ``ratio`` is the steered player's stall / ours, either at least
the 20 ms in which a stall can be seen at all.
``startup``: from the page's ``play`` to the first picture that moves, on a node that holds nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median

from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.browser.house import House
from farcast.tests.browser.line import Fault
from farcast.tests.browser.patchbay import PatchBay
from farcast.tests.browser.screen import MASTER, PACKAGES
from farcast.tests.browser.seen import Player, Seen
from farcast.tests.browser.trial import Trial, opened, why_not
from farcast.tests.wire.webserver import WebServer

FIGURES = ("failover_hang", "startup")
PLAYER = "hls.js"
ROUNDS, STARTS = 3, 16
RESOLUTION_MS = 20
ON_S, LONGEST_S = 10.0, 60.0
"""A round is over once so much was played after the fault, or so much time has passed."""
STEP_S = 0.25
PATHWAYS = ("cdn", "relay-1")
TTL_S = 60


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the figures named, or both."""
    names = [name for name in FIGURES if not only or name in only]
    if not names:
        return []
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS") or ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="farcast-bench-"))
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    try:
        with PatchBay() as bay:
            house = House(troupe, folder, bay)
            reason = why_not(PLAYER, house)
            if reason:
                return [{"name": name, "unit": "ms", "ratio": None, "skipped": reason} for name in names]
            house.assemble()
            found: list[dict[str, object]] = []
            if "failover_hang" in names:
                found.append(asyncio.run(_hang(house, rounds)))
            if "startup" in names:
                found.append(asyncio.run(_startup(house)))
            return found
    finally:
        troupe.close()
        shutil.rmtree(folder, ignore_errors=True)


async def _hang(house: House, rounds: int) -> dict[str, object]:
    ours: list[int] = []
    steered: list[int] = []
    waited: list[float] = []
    with billboard(house) as url:
        for _ in range(rounds):
            stall_ms, waited_ms = await _ours(house)
            ours.append(stall_ms)
            waited.append(waited_ms)
            steered.append(await _steered(house, url))
    version = json.loads((PACKAGES / "hls.js" / "package.json").read_text())["version"]
    return compared(
        "failover_hang",
        "ms of stall",
        [max(stall_ms, RESOLUTION_MS) for stall_ms in ours],
        [max(stall_ms, RESOLUTION_MS) for stall_ms in steered],
        Peer("hls.js with content steering", version),
        greater_is_better=False,
        extra={"stall_ms": float(median(ours)), "refetch_ms": round(median(waited), 1)},
    )


async def _ours(house: House) -> tuple[int, float]:
    """Play through the gateway; returns the stall and how long the first segment after the fault took."""
    trial = Trial(house, PLAYER)
    async with trial.playing() as player:
        begun = await trial.ready(player)
        at_s = time.monotonic()
        await asyncio.to_thread(house.bay.switch, ["cdn"], Fault.HANG)
        seen = await _played_on(player, begun.position_s)
        first = next(one for one in trial.asked if one.is_media and one.at_s > at_s)
        return seen.stall_ms, first.waited_s(time.monotonic()) * 1000


async def _steered(house: House, url: str) -> int:
    """Play without a node until the CDN has hung and the relay was found; returns the stall."""
    await asyncio.to_thread(house.bay.restore)
    async with opened(PLAYER) as player:
        try:
            await player.play(url)
            begun = await Trial(house, PLAYER).ready(player)
            await asyncio.to_thread(house.bay.switch, ["cdn"], Fault.HANG)
            return (await _played_on(player, begun.position_s)).stall_ms
        finally:
            await asyncio.to_thread(house.bay.restore)


async def _played_on(player: Player, from_s: float) -> Seen:
    """Wait until ``ON_S`` more were played, or it takes too long."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        moment = await player.now()
        if moment.position_s >= from_s + ON_S or time.monotonic() > deadline:
            return await player.seen()
        await asyncio.sleep(STEP_S)


async def _startup(house: House) -> dict[str, object]:
    starts = sorted([await Trial(house, PLAYER).start() for _ in range(STARTS)])
    p50, p95 = median(starts), starts[len(starts) * 95 // 100]
    return {
        "name": "startup",
        "unit": "ms",
        "ours": p50,
        "peer": None,
        "peer_name": "",
        "peer_version": "",
        "ratio": None,
        "rounds": len(starts),
        "spread": [starts[0], starts[-1]],
        "extra": {"p50_ms": float(p50), "p95_ms": float(p95)},
    }


@contextmanager
def billboard(house: House) -> Generator[str]:
    """Serve a master playlist whose pathways are CDN and relay, and its steering manifest."""
    master = (house.published_folder / MASTER).read_text()
    bases = {name: f"http://127.0.0.1:{house.seen_port(name)}/watch/{house.title}" for name in PATHWAYS}
    steering = {"VERSION": 1, "TTL": TTL_S, "PATHWAY-PRIORITY": list(PATHWAYS)}
    pages = {
        "/healthz": ("text/html", "<!doctype html><title>billboard</title>"),
        f"/{MASTER}": ("application/vnd.apple.mpegurl", steered_master(master, bases)),
        "/steering": ("application/json", json.dumps(steering)),
    }

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, text = pages.get(self.path.partition("?")[0], ("text/plain", ""))
            self.send_response(200 if text else 404)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            del format, args

    server = WebServer(Answers)
    server.start()
    try:
        yield f"{server.url}/{MASTER}"
    finally:
        server.close()


def steered_master(master: str, bases: Mapping[str, str]) -> str:
    """Write a master playlist with every rendition once for each pathway (rfc8216bis section 7)."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines.append(f'#EXT-X-CONTENT-STEERING:SERVER-URI="/steering",PATHWAY-ID="{next(iter(bases))}"')
    for name, base in bases.items():
        for line in master.splitlines():
            if line.startswith("#EXT-X-MEDIA:"):
                moved = re.sub(r'URI="([^"]+)"$', rf'URI="{base}/\1"', line)
                lines.append(moved.replace('GROUP-ID="audio"', f'GROUP-ID="audio-{name}"'))
            elif line.startswith("#EXT-X-STREAM-INF:"):
                moved = line.replace('PATHWAY-ID="."', f'PATHWAY-ID="{name}"')
                lines.append(moved.replace('AUDIO="audio"', f'AUDIO="audio-{name}"'))
            elif line and not line.startswith("#"):
                lines.append(f"{base}/{line}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
