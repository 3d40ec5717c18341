"""A relay's operator pins by CID what a real Kubo holds, through its gateway, and a kill does no harm."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.request import urlopen

import pytest

from farcast.node.demo.troupe import free_port
from farcast.protocol.car import Reader
from farcast.protocol.cid import Cid
from farcast.protocol.unixfs import content, leaves, resolve
from farcast.tests.interop.coast import Coast
from farcast.tests.interop.kubo import Daemon
from farcast.tests.wire.street import Box, ask, until

LARGE_BYTES = 64 << 20

Need = Callable[..., str]


@pytest.fixture(scope="module")
def kubo(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    daemon = Daemon(need("ipfs"), tmp_path_factory.mktemp("kubo"))
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def settings(coast: Coast, kubo: Daemon) -> dict[str, str]:
    """Join a relay of its own, and return its settings: Kubo's gateway is named."""
    port = free_port()
    settings = {
        "FARCAST_LISTEN_PORT": str(port),
        "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}",
        "FARCAST_IPFS_PIN_FROM": kubo.gateway,
    }
    street = coast.street
    link = street.must("origin", "invite", "--relay", "--home", coast.origin.home)["link"]
    assert street.run("relay", "join", link, "--home", street.home("pinner"), settings=settings).code == 0
    return settings


def start(coast: Coast, settings: dict[str, str]) -> Box:
    return coast.street.start("pinner", "relay", "run", settings=settings)


def folder(path: Path, size_bytes: int) -> dict[str, bytes]:
    """Make a folder with one large file and small ones below it; returns its files."""
    (path / "deep" / "er").mkdir(parents=True)
    files = {"film.bin": os.urandom(size_bytes), "deep/er/still.txt": b"still", "empty": b""}
    for name, data in files.items():
        (path / name).write_bytes(data)
    return files


def test_a_relay_killed_while_it_pins_goes_on_by_itself_and_then_serves(
    coast: Coast, kubo: Daemon, settings: dict[str, str], tmp_path: Path
) -> None:
    files = folder(tmp_path / "film", LARGE_BYTES)
    cid = kubo.run("add", "-Q", "-r", str(tmp_path / "film")).decode().strip()
    box = start(coast, settings)
    assert ask(box.local, "POST", f"/{box.token}/api/pins/{cid}").status == 200
    until(lambda: box.api(f"/api/pins/{cid}")["held_blocks"] >= 4)
    os.kill(box.process.pid, signal.SIGKILL)
    box.process.wait()
    (box.home / "admin.json").unlink()  # says where the dead one listened
    box = start(coast, settings)
    ran = coast.street.run("relay", "pin", f"/ipfs/{cid}", "--json", "--home", box.home)
    assert ran.code == 0, ran
    pinned = ran.json
    assert (pinned["whole"], pinned["cid"], pinned["error"]) == (True, cid, "")
    assert pinned["blocks"] == pinned["held_blocks"] > LARGE_BYTES >> 20
    fetched = box.metric("farcast_relay_pin_blocks_total")
    assert 0 < fetched <= pinned["blocks"] - 4
    assert box.metric("farcast_relay_pins", state="whole") == 1
    assert served(box, cid) == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert coast.street.must("relay", "unpin", cid, "--home", box.home)["cid"] == cid
    assert cid not in [pin["cid"] for pin in box.api("/api/pins")]
    ran = coast.street.run("relay", "unpin", cid, "--home", box.home)
    ran.refused(1, "is not pinned here")
    assert box.stop() == 0


def test_a_relay_without_an_origin_pins_too_and_serves_kubo_by_cid(
    coast: Coast, kubo: Daemon, tmp_path: Path
) -> None:
    files = folder(tmp_path / "film", 3 << 20)
    cid = kubo.run("add", "-Q", "-r", str(tmp_path / "film")).decode().strip()
    street, deny = coast.street, tmp_path / "deny"
    deny.write_text("")
    street.must("relay", "init", "--standalone", "--home", street.home("alone"))
    terms = {"FARCAST_IPFS_PIN_FROM": kubo.gateway, "FARCAST_DENY_FILES": str(deny)}
    box = street.start("alone", "relay", "run", settings=terms)
    assert street.must("relay", "pin", cid, "--home", box.home)["whole"]
    status = box.api("/api/status")
    assert status["verdict"] == "Serving 0 imported and 1 pinned root, standalone"
    assert [pin["cid"] for pin in status["pins"]] == [cid]
    assert served(box, cid) == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    deny.write_text(f"/ipfs/{cid}\n")
    until(lambda: ask(f"127.0.0.1:{box.port}", "GET", f"/ipfs/{cid}?format=raw").status == 410)
    street.run("relay", "pin", cid, "--home", box.home).refused(1, "taken down")
    assert box.stop() == 0


def test_wrong_use_and_a_cid_nobody_has_are_one_sentence(coast: Coast, settings: dict[str, str]) -> None:
    coast.street.run("relay", "pin", "hello", "--home", coast.relay.home).refused(1, "no title 'hello'")
    absent = str(Cid.of(0x55, os.urandom(8)))
    off = coast.street.run("relay", "pin", absent, "--home", coast.relay.home)
    off.refused(1, "pinning by CID is off", "[ipfs] pin_from")
    away = {**settings, "FARCAST_IPFS_PIN_FROM": f"http://127.0.0.1:{free_port()}"}
    box = start(coast, away)
    coast.street.run("relay", "pin", absent, "--home", box.home).refused(1, away["FARCAST_IPFS_PIN_FROM"])
    assert box.stop() == 0
    ran = coast.street.run("relay", "pin", absent, "--home", box.home)
    ran.refused(2, "start it with `farcast relay run`")


def served(box: Box, cid: str) -> dict[str, str]:
    """Fetch a DAG from a box as a CAR, and return each file's SHA-256 by its path."""
    reader, blocks = Reader(), dict[Cid, bytes]()
    with urlopen(f"http://127.0.0.1:{box.port}/ipfs/{cid}?format=car", timeout=60) as answer:
        while piece := answer.read(1 << 20):
            blocks.update(reader.push(piece))
    reader.finish()
    found: dict[str, str] = {}
    for path in ("film.bin", "deep/er/still.txt", "empty"):
        file = resolve(Cid.parse(cid), path.split("/"), blocks.get)
        data = b"".join(content(leaf, blocks[leaf.cid]) for leaf in leaves(file, blocks.get))
        found[path] = hashlib.sha256(data).hexdigest()
    return found
