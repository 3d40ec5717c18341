"""The second viewer of a cold segment against the first: who comes later must not wait longer.

A real origin behind a CDN with a pace, and a real relay; in each round two viewers ask for the same
4 MiB segment that the relay has never seen, the second a moment after the first.
``ratio`` is the first's time to first byte / the second's; ``extra.whole_ratio`` is the time of the
whole segment / the first's time to first byte: 1 where a relay waits until it has everything.
``extra.source_copies`` is how often each block left the source.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

from farcast.node.demo.troupe import free_port
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.wire.pantry import Meter, Stocked, office, stock
from farcast.tests.wire.street import Street, ask, until

FIGURES = ("cold_second_viewer",)
ROUNDS = 9
MIB = 1 << 20
SEGMENT_BYTES = 4 * MIB
PACE_BYTES_S = 8 * MIB
BEHIND_S = 0.02


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``cold_second_viewer`` unless ``only`` names other figures."""
    if only and "cold_second_viewer" not in only:
        return []
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        street, origin_port, relay_port = Street(Path(folder)), free_port(), free_port()
        meter = Meter(origin_port)
        try:
            film = _assemble(street, meter, origin_port, relay_port, rounds)
            return [_measure(relay_port, meter, film, rounds)]
        finally:
            street.close()
            meter.close()


def _assemble(street: Street, meter: Meter, origin_port: int, relay_port: int, rounds: int) -> Stocked:
    home, random = street.home("origin"), Random(1)
    files = {f"v0/seg-{at:05d}.m4s": random.randbytes(SEGMENT_BYTES) for at in range(rounds)}
    street.must(
        "origin", "init", "--endpoint", f"127.0.0.1:{origin_port}", "--cdn", meter.url, "--home", home
    )
    books = office(home)
    film = stock(books, "film", {"master.m3u8": b"#EXTM3U\n", **files})
    books.close()
    street.start("origin", "origin", "run", settings=_listen(origin_port))
    link = street.must("origin", "invite", "--relay", "--home", home)["link"]
    own = {**_listen(relay_port), "FARCAST_FILL_AHEAD": "0", "FARCAST_FILL_PUSH": "false"}
    joined = street.run("relay", "join", link, "--home", street.home("relay"), settings=own)
    assert joined.code == 0, joined
    relay = street.start("relay", "relay", "run", settings=own)
    until(lambda: relay.api("/api/status")["titles"] == 1)
    assert ask(f"127.0.0.1:{relay_port}", "GET", "/watch/film/master.m3u8").status == 200
    return film


def _listen(port: int) -> dict[str, str]:
    return {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}


def _measure(port: int, meter: Meter, film: Stocked, rounds: int) -> dict[str, object]:
    meter.bytes_s = PACE_BYTES_S
    firsts: list[float] = []
    seconds: list[float] = []
    wholes: list[float] = []
    copies: list[int] = []
    for number in range(rounds):
        path = f"v0/seg-{number:05d}.m4s"
        (first_s, whole_s), (second_s, _) = asyncio.run(_pair(port, f"/watch/film/{path}"))
        firsts.append(first_s)
        seconds.append(second_s)
        wholes.append(whole_s)
        copies += [meter.count(cid) for cid in film.leaves[path]]
    whole = median(whole / first for whole, first in zip(wholes, firsts, strict=True))
    return compared(
        "cold_second_viewer",
        "s to first byte",
        seconds,
        firsts,
        Peer("the first viewer"),
        greater_is_better=False,
        digits=4,
        extra={"whole_ratio": round(whole, 3), "source_copies": sum(copies) / len(copies)},
    )


async def _pair(port: int, path: str) -> tuple[tuple[float, float], tuple[float, float]]:
    return await asyncio.gather(_viewer(port, path, 0.0), _viewer(port, path, BEHIND_S))


async def _viewer(port: int, path: str, behind_s: float) -> tuple[float, float]:
    """Watch a segment; returns the seconds until its first byte and until its last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(behind_s)
    began = time.perf_counter()
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    await reader.readexactly(1)
    first_s = time.perf_counter() - began
    await reader.readexactly(SEGMENT_BYTES - 1)
    whole_s = time.perf_counter() - began
    writer.close()
    return first_s, whole_s


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
