"""A small Farcast of real processes for the peers: an origin, a relay, a film and a large file."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from farcast.node.demo.troupe import free_port
from farcast.node.settings import Settings
from farcast.origin.office import Office
from farcast.protocol.cid import Cid
from farcast.protocol.manifest import Manifest, open_manifest, seal_manifest
from farcast.protocol.unixfs import Entry, FileWriter, directory
from farcast.tests.interop.front import FRONTS, Authority, Front
from farcast.tests.wire.street import FILM, Box, Street, ask, draw, until

BULK_BYTES = 50 << 20


@dataclass
class Coast:
    """Everybody, and what they publish."""

    street: Street
    origin: Box
    relay: Box
    authority: Authority
    fronts: dict[str, int]
    """Ports of the front proxies that are installed here, and run."""
    proxies: list[Front]
    film: dict[str, Any]
    bulk: tuple[Cid, Cid]
    """Root and file of the title ``bulk``: ``film.bin`` alone, of ``BULK_BYTES``."""
    bulk_sha256: str

    @property
    def routing(self) -> str:
        """Where delegated routing is asked."""
        return f"http://127.0.0.1:{self.origin.port}"

    @property
    def folder(self) -> Path:
        """The film's files as they were packaged."""
        return Path(self.film["folder"])

    def files(self) -> dict[str, bytes]:
        """Return what the film's folder holds, by path."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}

    def close(self) -> None:
        """End every process."""
        self.street.close()
        for proxy in self.proxies:
            proxy.stop()


def settle(folder: Path, programs: dict[str, str]) -> Coast:
    """Publish, and bring up an origin, a relay, and in front of it the proxies of ``programs``."""
    street, authority = Street(folder), Authority(folder)
    # the origin dials a relay's web endpoint back, and must trust the private authority as a public one
    street.settings["SSL_CERT_FILE"] = str(authority.path)
    home = street.home("origin")
    ports = {name: free_port() for name in ("origin", "relay", *programs)}
    fronts = {name: ports[name] for name in programs}
    proxies: list[Front] = []
    try:
        endpoint = f"127.0.0.1:{ports['origin']}"
        street.must("origin", "init", "--name", "Coast", "--endpoint", endpoint, "--home", home)
        street.must("origin", "payee", "add", "ada", "--home", home)
        film = draw(folder / "film.mp4", *FILM)
        published = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        bulk, digest = _publish_bulk(home)
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        listen = {"FARCAST_LISTEN_PORT": str(ports["origin"])}
        origin = street.start("origin", "origin", "run", settings=listen)
        for name, program in programs.items():
            (folder / name).mkdir()
            proxies.append(FRONTS[name](program, folder / name, authority, ports[name], ports["relay"]))
        places = [f"127.0.0.1:{ports['relay']}", *(f"https://localhost:{port}" for port in fronts.values())]
        settings = {
            "FARCAST_LISTEN_PORT": str(ports["relay"]),
            "FARCAST_NETWORK_ANNOUNCE": ",".join(places),
        }
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
        assert ran.code == 0, ran
        relay = street.start("relay", "relay", "run", settings=settings)
        until(lambda: relay.api("/api/status")["standing"] == "approved", 30)
        until(lambda: ask(f"127.0.0.1:{relay.port}", "GET", f"/ipfs/{bulk[0]}?format=raw").status == 200, 30)
        return Coast(street, origin, relay, authority, fronts, proxies, published, bulk, digest)
    except BaseException:
        street.close()
        for proxy in proxies:
            proxy.stop()
        raise


def _publish_bulk(home: Path) -> tuple[tuple[Cid, Cid], str]:
    """List a title whose folder holds one large file; returns root and file, and its SHA-256."""
    office = Office(home, Settings.load(None, {}), lambda: time.time_ns() // 1_000_000)
    try:
        writer, digest = FileWriter(), hashlib.sha256()
        for _ in range(BULK_BYTES >> 20):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            for cid, data in writer.push(piece):
                office.shelf.store.put(cid, data)
        blocks, file = writer.finish()
        folder: tuple[Cid, bytes, Entry] = directory({"film.bin": file})
        for cid, data in [*blocks, folder[:2]]:
            office.shelf.store.put(cid, data)
        manifest_block = office.shelf.store.get(office.log.catalog.titles()["film"].cid)
        assert manifest_block is not None
        manifest: Manifest = msgspec.structs.replace(
            open_manifest(manifest_block), title="bulk", root=folder[0].encode(), size_bytes=BULK_BYTES
        )
        cid, data = seal_manifest(manifest, office.keys.publisher)
        office.shelf.store.put(cid, data)
        office.shelf.store.pin("bulk", [cid])
        office.log.append("publish", "bulk", cid, time.time_ns() // 1_000_000)
        return (folder[0], file.cid), digest.hexdigest()
    finally:
        office.close()
