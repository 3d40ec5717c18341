"""A plain server: the film's files as they were published, up to a segment; at what comes after it hangs.

The yardstick of what a player can do with what it was given: some stop a while before its end.
"""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from farcast.node.http.ranges import parse_range
from farcast.tests.browser.tap import MEDIA
from farcast.tests.wire.webserver import WebServer

HANG_LIMIT_S = 60.0
TYPES = {".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml"}


def numbered(name: str) -> tuple[str, int] | None:
    """Return the track (``v`` or ``a``) and number of a segment, None for any other file."""
    return (name[0], int(name[-9:-4])) if name.endswith(MEDIA) and name[-9:-4].isdigit() else None


@contextmanager
def plain_server(folder: Path, held: Mapping[str, int]) -> Generator[str]:
    """Serve ``folder``, of each track the first ``held`` segments of every rendition; yields its address."""
    over = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].lstrip("/")
            segment = numbered(name)
            if segment is not None and segment[1] >= held.get(segment[0], 0):
                over.wait(HANG_LIMIT_S)
                self.close_connection = True
                return
            path = folder / name
            if name == "healthz":
                self._send(b"<!doctype html><title>plain</title>", "text/html")
            elif path.is_file():
                kind = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "video/mp4"
                self._send(path.read_bytes(), kind)
            else:
                self.send_error(404)

        def _send(self, data: bytes, kind: str) -> None:
            span = parse_range(self.headers.get("range", ""), len(data))
            part = data[span.first : span.first + span.length] if span else data
            self.send_response(206 if span else 200)
            if span:
                last = span.first + span.length - 1
                self.send_header("content-range", f"bytes {span.first}-{last}/{len(data)}")
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(part)))
            self.send_header("accept-ranges", "bytes")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            del format, args

    server = WebServer(Answers)
    server.start()
    try:
        yield server.url
    finally:
        over.set()
        server.close()
