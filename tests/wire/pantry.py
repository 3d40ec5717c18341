"""Titles made of given bytes, put into an origin's home without any encoding; and a CDN that counts."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from farcast.node.settings import Settings
from farcast.origin.office import Office
from farcast.origin.publish import pin_label
from farcast.protocol.cid import Cid
from farcast.protocol.manifest import Manifest, Payee, Rendition, Window, seal_manifest
from farcast.protocol.unixfs import Entry, FileWriter, directory
from farcast.tests.wire.webserver import WebServer

PIECE_BYTES = 64 << 10
ENDLESS_BYTES = 64 << 20
"""Where even an endless body ends, so that a reader without a bound fails and does not hang."""


class Stocked(NamedTuple):
    """What was put in: the root folder, the manifest, and the leaf blocks of each file."""

    title: str
    root: Cid
    manifest: Cid
    leaves: dict[str, list[Cid]]

    @property
    def cids(self) -> set[Cid]:
        """Every leaf, the root and the manifest."""
        return {self.root, self.manifest, *(cid for leaves in self.leaves.values() for cid in leaves)}


def stock(office: Office, title: str, files: Mapping[str, bytes]) -> Stocked:
    """Publish ``files`` (one folder deep) as a title that is played from ``v0``."""
    leaves: dict[str, list[Cid]] = {}
    folders: dict[str, dict[str, Entry]] = {}
    every: list[Cid] = []
    for path, data in files.items():
        writer = FileWriter()
        blocks = writer.push(data)
        rest, entry = writer.finish()
        leaves[path] = [cid for cid, _ in (*blocks, *rest) if str(cid).startswith("bafk")]
        for cid, block in (*blocks, *rest):
            office.shelf.store.put(cid, block)
            every.append(cid)
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = entry
    top = folders.pop("", {})
    for name, inside in folders.items():
        cid, block, top[name] = directory(inside)
        office.shelf.store.put(cid, block)
        every.append(cid)
    root, block, link = directory(top)
    office.shelf.store.put(root, block)
    segments = sum(path.startswith("v0/") for path in files)
    shown = Rendition("v0", "video", "v0/index.m3u8", "avc1.64001f", 1, 1, 640, 360, 25_000, "", segments, 1)
    now_ms = time.time_ns() // 1_000_000
    listed = office.log.catalog.listed(title)
    manifest, data = seal_manifest(
        Manifest(
            1, title, 1, office.keys.publisher.key, title, "", "en", 2_000 * segments, root.encode(),
            link.tsize, [shown], [], Window(0, 0), [], [Payee("ada", 10_000)], "open", None, now_ms,
            listed.manifest if listed else b"",
        ),
        office.keys.publisher,
    )  # fmt: skip
    office.shelf.store.put(manifest, data)
    office.shelf.store.pin(pin_label(title, root), [*every, root])
    office.shelf.store.pin(f"manifest:{manifest}", [manifest])
    office.shelf.store.sync()
    office.log.append("supersede" if listed else "publish", title, manifest, now_ms)
    return Stocked(title, root, manifest, leaves)


def office(home: Path) -> Office:
    """Open the office of an origin that does not run."""
    return Office(home, Settings.load(None, {}), lambda: time.time_ns() // 1_000_000)


class Meter(WebServer):
    """A CDN in front of ``origin``: it counts what it is asked, has a pace, and can be made to spoil blocks.

    ``way`` is '', wrong, short, endless, cut (half of it, then the connection ends) or missing; it holds
    for the paths in ``spoilt``, or all. With ``keeps`` it has in ``kept`` whatever it fetched.
    """

    def __init__(self, origin: int) -> None:
        """Listen on a free port of loopback."""
        super().__init__(_Asked)
        self.origin = origin
        self.bytes_s = 0
        self.way = ""
        self.spoilt: set[str] | None = None
        self.keeps = False
        self.kept: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.start()

    def count(self, cid: Cid) -> int:
        """Return how often a block was asked for."""
        return self.asked[f"/ipfs/{cid}"]


class _Asked(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        meter = self.server
        assert isinstance(meter, Meter)
        path = self.path.partition("?")[0]
        with meter.lock:
            meter.asked[path] += 1
        way = meter.way if meter.spoilt is None or path in meter.spoilt else ""
        if way == "missing":
            self.send_error(404)
            return
        try:
            with urlopen(f"http://127.0.0.1:{meter.origin}{self.path}", timeout=10) as answer:
                data = answer.read()
        except HTTPError as error:
            self.send_response(error.code)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if meter.keeps:
            with meter.lock:
                meter.kept[path] = data
        if way == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        elif way == "short":
            data = data[:-1]
        body = data[: len(data) // 2] if way == "cut" else data
        self.send_response(200)
        if way == "endless":
            body = data * (ENDLESS_BYTES // len(data))
            self.send_header("connection", "close")
        else:
            self.send_header("content-length", str(len(data)))
        self.send_header("cache-control", "public, max-age=60")
        self.send_header("age", "10")
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(0, len(body), PIECE_BYTES):
            piece = body[at : at + PIECE_BYTES]
            if meter.bytes_s:
                time.sleep(len(piece) / meter.bytes_s)
            self.wfile.write(piece)
            with meter.lock:
                meter.sent_bytes[path] += len(piece)
        self.close_connection = len(body) != len(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        del format, args
