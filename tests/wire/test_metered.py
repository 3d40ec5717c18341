"""A node on a link whose bytes are paid for: it stops where the day's budget ends, a restart included."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.pantry import Meter, office, stock
from farcast.tests.wire.street import Answered, Box, Street, ask, until

DAILY = 8_000_000
SEGMENTS, SEGMENT_BYTES = 20, 600_000


def play(viewer: Box, at: int) -> Answered:
    """Ask for a segment as a player does."""
    return ask(viewer.local, "GET", f"/{viewer.token}/watch/long/v0/seg-{at:05d}.m4s")


def test_a_days_budget_is_a_hard_stop_and_a_restart_gives_nothing(tmp_path: Path) -> None:
    street, port, random = Street(tmp_path), free_port(), Random(3)
    meter, home = Meter(port), street.home("origin")
    listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    metered = {
        "FARCAST_METERED_DAILY_BYTES": str(DAILY),
        "FARCAST_MESH_ENABLED": "false",
        "FARCAST_CATALOG_POLL_S": "6",
        "FARCAST_CATALOG_IDLE_POLL_S": "6",
    }
    try:
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--cdn", meter.url, "--home", home)
        books = office(home)
        film = {f"v0/seg-{at:05d}.m4s": b"\0" + random.randbytes(SEGMENT_BYTES - 1) for at in range(SEGMENTS)}
        long = stock(books, "long", {**film, "v0/index.m3u8": b"#EXTM3U\n", "master.m3u8": b"#EXTM3U\n"})
        stock(books, "short", {"master.m3u8": b"#EXTM3U\n"})
        books.close()
        street.start("origin", "origin", "run", settings=listen)
        link = street.must("origin", "invite", "--home", home)["link"]
        street.must("join", link, "--home", street.home("viewer"))
        viewer = street.start("viewer", "run", settings=metered)
        until(lambda: len(viewer.api("/api/titles")) == 2, 30)
        until(lambda: viewer.api("/api/status")["verdict"].endswith(" of 8 MB today"))
        answers = [play(viewer, at) for at in range(SEGMENTS)]
        played = [answer.body for answer in answers if answer.status == 200]
        assert played == [*film.values()][: len(played)]
        assert DAILY * 0.5 < len(played) * SEGMENT_BYTES < DAILY
        refused = answers[-1]
        assert (refused.status, json.loads(refused.body)["reason"]) == (503, "budget_spent")
        assert "today's 8 MB of this link are used up" in json.loads(refused.body)["detail"]
        used = viewer.api("/api/status")["metered"]["used_bytes"]
        assert len(played) * SEGMENT_BYTES < used < DAILY
        assert viewer.metric("farcast_node_metered_bytes_total", kind="blocks") > len(played) * SEGMENT_BYTES
        assert sum(meter.count(cid) for leaves in long.leaves.values() for cid in leaves) <= len(played) + 2
        viewer.process.kill()
        viewer.process.wait(10)
        (viewer.home / "admin.json").unlink()
        sent = sum(meter.sent_bytes.values())
        viewer = street.start("viewer", "run", settings=metered)
        assert play(viewer, 0).body == film["v0/seg-00000.m4s"], "what is here plays on"
        assert play(viewer, SEGMENTS - 1).status == 503
        assert viewer.api("/api/status")["metered"]["used_bytes"] >= used
        assert sum(meter.sent_bytes.values()) == sent, "no block was asked for"
        until(lambda: viewer.api("/api/status")["verdict"].startswith("Today's bytes are used up"), 15)
        assert viewer.metric("farcast_node_metered_refusals_total", kind="first") == 0, "these come first"
    finally:
        street.close()
        meter.close()
