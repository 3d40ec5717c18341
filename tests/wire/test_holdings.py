"""What a relay brings unasked and shows its operator: push, prefetch, pins, deny files, an origin away."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any, NamedTuple

import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.report import quiet
from farcast.origin.command import call_running
from farcast.protocol.cid import Cid
from farcast.tests.wire.pantry import Meter, Stocked, office, stock
from farcast.tests.wire.street import Answered, Box, Street, ask, until

MIB = 1 << 20
SEGMENTS = 8


class House(NamedTuple):
    """An origin with three films, and one relay whose quiet hours are all day."""

    street: Street
    meter: Meter
    origin: Box
    relay: Box
    settings: dict[str, str]
    films: dict[str, Stocked]
    denied: Cid

    def ask(self, path: str, method: str = "GET") -> Answered:
        """Ask the relay."""
        return ask(f"127.0.0.1:{self.relay.port}", method, path)

    def row(self, title: str) -> dict[str, Any] | None:
        """Return what `relay holdings` says of a title."""
        found = self.street.must("relay", "holdings", "--home", self.relay.home)
        return next((row for row in found["titles"] if row["title"] == title), None)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """Bring them up; pushing is off until a test wants it."""
    street, port, random = Street(tmp_path_factory.mktemp("house")), free_port(), Random(6)
    meter, home, relay_port = Meter(port), street.home("origin"), free_port()
    try:
        place = f"127.0.0.1:{port}"
        street.must("origin", "init", "--endpoint", place, "--cdn", meter.url, "--home", home)
        books = office(home)
        films = {
            title: stock(
                books, title,
                {f"v0/seg-{at:05d}.m4s": b"\0" + random.randbytes(MIB // 2 - 1) for at in range(SEGMENTS)}
                | {"master.m3u8": b"#EXTM3U\n"},
            )
            for title in ("watched", "wanted", "kept")
        }  # fmt: skip
        books.close()
        denied = films["kept"].leaves["v0/seg-00003.m4s"][0]
        (street.folder / "ours.deny").write_text(
            f"version: 1\n---\n/ipfs/{films['wanted'].root}/v0/seg-00005*\n"
        )
        origin = street.start("origin", "origin", "run", settings=_listen(port))
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        settings = {
            **_listen(relay_port),
            "FARCAST_FILL_PUSH": "false",
            "FARCAST_DENY_FILES": str(street.folder / "ours.deny"),
            "FARCAST_CONTRACT_QUIET_HOURS": "00:00-24:00",
        }
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
        assert ran.code == 0, ran
        relay = street.start("relay", "relay", "run", settings=settings)
        until(lambda: relay.api("/api/status")["titles"] == len(films))
        yield House(street, meter, origin, relay, settings, films, denied)
    finally:
        street.close()
        meter.close()


def _listen(port: int) -> dict[str, str]:
    return {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}


def test_the_segments_after_a_watched_one_come_in_before_they_are_asked_for(house: House) -> None:
    film = house.films["watched"]
    assert house.ask("/watch/watched/v0/seg-00000.m4s").status == 200
    wanted = [cid for at in (1, 2) for cid in film.leaves[f"v0/seg-{at:05d}.m4s"]]
    until(lambda: all(house.ask(f"/ipfs/{cid}?format=raw", "HEAD").status == 200 for cid in wanted))
    third = film.leaves["v0/seg-00003.m4s"][0]
    assert house.ask(f"/ipfs/{third}?format=raw", "HEAD").status == 404, "two, and no more"
    assert house.ask("/watch/watched/v0/seg-00001.m4s").status == 200
    until(lambda: house.ask(f"/ipfs/{third}?format=raw", "HEAD").status == 200)
    until(lambda: house.relay.metric("farcast_relay_ahead_segments_total", result="brought") == 3)
    until(lambda: (house.row("watched") or {}).get("last_asked") is not None)
    row = house.row("watched")
    assert row is not None
    assert 45 < row["held_percent"] < 55
    assert row["last_asked"].endswith(":00Z")
    assert not row["pinned"]


def test_a_pinned_title_comes_whole_and_is_shown_as_pinned(house: House) -> None:
    assert house.row("kept") is None or house.row("kept")["held_percent"] < 5  # type: ignore[index]
    pinned = house.street.must("relay", "pin", "kept", "--home", house.relay.home)
    assert pinned["whole"]
    row = house.row("kept")
    assert row is not None
    assert (row["pinned"], row["held_percent"]) == (True, 100.0)
    assert house.street.must("relay", "unpin", "kept", "--home", house.relay.home)["held_blocks"] > SEGMENTS
    row = house.row("kept")
    assert row is not None
    assert not row["pinned"]
    house.street.run("relay", "pin", "nothing", "--home", house.relay.home).refused(1, "nothing")


def test_a_deny_file_holds_for_paths_and_blocks_and_is_read_again(house: House) -> None:
    assert house.ask("/watch/wanted/v0/seg-00004.m4s").status == 200
    answer = house.ask("/watch/wanted/v0/seg-00005.m4s")
    assert (answer.status, answer.reason) == (410, "denied")
    root = house.films["wanted"].root
    assert house.ask(f"/ipfs/{root}/v0/seg-00005.m4s?format=raw").status == 410
    assert house.ask(f"/ipfs/{house.denied}?format=raw").status == 200
    assert house.ask("/watch/kept/v0/seg-00003.m4s").status == 200
    with (house.street.folder / "ours.deny").open("a") as file:
        file.write(f"nonsense\n/ipfs/{house.denied}\n")
    until(lambda: house.ask(f"/ipfs/{house.denied}?format=raw").status == 410)
    assert house.ask("/watch/kept/v0/seg-00003.m4s").status == 410, "a file needs all its blocks"
    assert house.ask("/watch/kept/v0/seg-00002.m4s").status == 200
    assert house.relay.metric("farcast_node_deny_unknown_lines") == 1
    assert house.relay.metric("farcast_node_embargoed_answers_total", by="file") >= 4
    house.street.run(
        "relay",
        "run",
        "--home",
        house.street.home("relay2"),
        settings={"FARCAST_DENY_FILES": "/nowhere.deny"},
    ).refused(2)


def test_the_last_catalog_is_served_while_the_origin_is_away(house: House) -> None:
    assert house.relay.metric("farcast_relay_stale_answers_total") == 0
    assert not house.relay.api("/api/status")["catalog"]["stale"]
    house.origin.stop()
    until(lambda: bool(house.relay.api("/api/status")["catalog"]["stale"]), 40)
    assert house.ask("/v1/catalog/checkpoint").status == 200
    assert house.relay.metric("farcast_relay_stale_answers_total", kind="checkpoint") >= 1
    assert house.relay.metric("farcast_relay_checkpoint_age_seconds") > 0
    port = int(house.origin.port)
    again = house.street.start("origin", "origin", "run", settings=_listen(port))
    assert again.port == port
    until(lambda: not house.relay.api("/api/status")["catalog"]["stale"], 40)


def test_new_titles_come_in_by_themselves_in_the_quiet_hours(house: House) -> None:
    house.relay.stop()
    relay = house.street.start(
        "relay", "relay", "run", settings={**house.settings, "FARCAST_FILL_PUSH": "true"}
    )
    film = house.films["wanted"]
    allowed = [cid for path, cids in film.leaves.items() if "00005" not in path for cid in cids]
    place = f"127.0.0.1:{relay.port}"
    until(lambda: all(ask(place, "HEAD", f"/ipfs/{cid}?format=raw").status == 200 for cid in allowed), 60)
    assert relay.metric("farcast_relay_pushed_bytes_total") > MIB


def test_a_takedown_says_how_long_each_tier_took_and_outlives_a_restart(house: House) -> None:
    film, place = house.films["watched"], f"127.0.0.1:{house.relay.port}"
    assert ask(place, "GET", "/watch/watched/v0/seg-00000.m4s").status == 200
    found = house.street.must("origin", "deny", "watched", "--home", house.origin.home)
    tiers = {row["tier"]: row for row in found["tiers"]}
    assert (tiers["origin"]["state"], tiers["relay"]["state"]) == ("gone", "gone")
    assert 0 < tiers["relay"]["seconds"] < 30
    assert tiers["cdn"]["name"] == house.meter.url
    assert tiers["cdn"]["state"] == "gone", "this one asks the origin each time"
    assert found["dropped_blocks"] > SEGMENTS
    origin = f"127.0.0.1:{house.origin.port}"
    for where in (place, origin):
        for path in ("/watch/watched/v0/seg-00000.m4s", f"/ipfs/{film.root}?format=raw"):
            assert ask(where, "GET", path).status == 410, (where, path)
    house.street.boxes["relay"].stop()
    relay = house.street.start("relay", "relay", "run", settings=house.settings)
    others = house.films["kept"].cids | house.films["wanted"].cids
    assert len(film.cids & others) == 1, "they share a playlist"
    for cid in film.cids:
        assert ask(place, "GET", f"/ipfs/{cid}?format=raw").status == (200 if cid in others else 410)
    assert relay.metric("farcast_node_takedowns") == 1
    house.street.run("origin", "retire", "watched", "--home", house.origin.home).refused(2, "watched")
    house.street.run("origin", "purge", "kept", "--home", house.origin.home).refused(2, "retire")
    retired = house.street.must("origin", "retire", "kept", "--home", house.origin.home)
    assert {row["tier"]: row["state"] for row in retired["tiers"]}["relay"] == "knows"
    patience = {
        "title": "kept",
        "wait_s": 1,
    }  # a relay may keep what is only off the list
    purged = call_running(house.origin.home, "purge", patience, quiet)
    assert purged["dropped_blocks"] > SEGMENTS
    assert {row["tier"]: row["state"] for row in purged["tiers"]}["relay"] == "serves"
    assert ask(origin, "GET", f"/ipfs/{house.films['kept'].root}?format=raw").status == 404
