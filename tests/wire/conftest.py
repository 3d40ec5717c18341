"""One small Farcast for the hostile tests: origin, relay and viewer's node, and a CDN that lies."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.settings import Settings
from farcast.origin.office import Office
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import Cid
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, open_manifest, seal_manifest
from farcast.tests.wire.street import DAY_S, FILM, Box, Liar, Street, draw, until

PASSPHRASE = "correct horse battery staple"
STRANGER = Identity(b"s" * 32)


@dataclass
class Town:
    """Everybody, and what the tests need to know of them."""

    street: Street
    film: Path
    liar: Liar
    origin: Box
    relay: Box
    viewer: Box
    published: dict[str, Any]
    invites: dict[str, str]

    def invite(self, *arguments: str) -> str:
        """Return a fresh link of the running origin."""
        found = self.street.must("origin", "invite", *arguments, "--home", self.origin.home)
        return str(found["link"])


def forge(home: Path) -> None:
    """Let the catalog list what is not right: a manifest of a stranger's, and one of another title."""
    office = Office(home, Settings.load(None, {}), lambda: time.time_ns() // 1_000_000)
    try:
        entry: Entry = office.log.catalog.titles()["film"]
        data = office.shelf.store.get(entry.cid)
        assert data is not None
        manifest: Manifest = open_manifest(data)
        forged = msgspec.structs.replace(manifest, title="forged", publisher=STRANGER.key)
        cid, block = seal_manifest(forged, STRANGER)
        office.shelf.store.put(cid, block)
        office.shelf.store.pin("forged", [cid])
        _list(office, "forged", cid)
        _list(office, "mislabelled", entry.cid)
    finally:
        office.close()


def _list(office: Office, title: str, cid: Cid) -> None:
    office.log.append("publish", title, cid, time.time_ns() // 1_000_000)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Generator[Town]:
    """Bring everybody up; the CDN is silent until a test lets it lie."""
    folder = tmp_path_factory.mktemp("town")
    street, liar = Street(folder), Liar()
    liar.origin = free_port()
    home = street.home("origin")
    try:
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        film = draw(folder / "film.mp4", *FILM)
        street.must(
            "origin", "init", "--name", "Town", "--endpoint", f"127.0.0.1:{liar.origin}", "--home", home,
            "--cdn", f"http://127.0.0.1:{liar.server_address[1]}", "--passphrase-file", folder / "passphrase",
        )  # fmt: skip
        street.must("origin", "payee", "add", "ada", "--home", home)
        published = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        forge(home)
        late = street.must("origin", "account", "add", "late", "--home", home, shift_s=-40 * DAY_S)
        old = street.must("origin", "invite", "--relay", "--home", home, shift_s=-40 * DAY_S)
        uplink = {"FARCAST_UPLINK_ENABLED": "true", "FARCAST_UPLINK_RATE_BPS": "1000000"}
        origin = street.start("origin", "origin", "run", settings={**uplink, **listen(liar.origin)})
        with ThreadPoolExecutor(2) as pool:
            relay = pool.submit(_relay, street, home)
            viewer = pool.submit(_viewer, street, home)
        invites = {"late": str(late["link"]), "old": str(old["link"])}
        town = Town(street, film, liar, origin, relay.result(), viewer.result(), published, invites)
        until(lambda: town.viewer.api("/api/status")["verdict"] == "Ready", 30)
        until(lambda: _sources(town.viewer, "relay") == 1, 30)
        yield town
    finally:
        street.close()
        liar.close()


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Generator[Street]:
    """Make an origin that does not run, and that has one payee."""
    street = Street(tmp_path_factory.mktemp("street"))
    street.must("origin", "init", "--endpoint", "127.0.0.1:9", "--home", street.home("origin"))
    street.must("origin", "payee", "add", "ada", "--home", street.home("origin"))
    yield street
    street.close()


def listen(port: int) -> dict[str, str]:
    """Return the settings of a box that listens on, and announces, ``port``."""
    return {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}


def _relay(street: Street, origin: Path) -> Box:
    link = street.must("origin", "invite", "--relay", "--home", origin)["link"]
    settings = listen(free_port())
    ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
    assert ran.code == 0, ran
    return street.start("relay", "relay", "run", settings=settings)


def _viewer(street: Street, origin: Path) -> Box:
    link = street.must("origin", "account", "add", "alice", "--home", origin)["link"]
    street.must("join", link, "--home", street.home("viewer"))
    return street.start("viewer", "run")


def _sources(viewer: Box, tier: str) -> int:
    return sum(row["sources"] for row in viewer.api("/api/status")["tiers"] if row["name"] == tier)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files of one test, lest one worker is still at them when the other is done."""
    items.sort(key=lambda item: not item.path.stem.endswith("_kill"))
