"""A delegated router that passes the origin's answers on with the addresses of one port alone."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any
from urllib.request import urlopen


class Signpost(http.server.ThreadingHTTPServer):
    """Asks ``routing`` and leaves clients no other way than ``port``."""

    daemon_threads = True

    def __init__(self, routing: str, port: int) -> None:
        """Listen on a free port of loopback."""
        super().__init__(("127.0.0.1", 0), _Answer)
        self.routing = routing
        self.port = port
        self.asked = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        post = self.server
        assert isinstance(post, Signpost)
        post.asked += 1
        with urlopen(post.routing + self.path, timeout=10) as answer:  # noqa: S310 - a box of the test's own
            providers = json.loads(answer.read())["Providers"]
        body = json.dumps(
            {"Providers": [one for one in map(self._pointed, providers) if one["Addrs"]]}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pointed(self, provider: dict[str, Any]) -> dict[str, Any]:
        post = self.server
        assert isinstance(post, Signpost)
        return {**provider, "Addrs": [addr for addr in provider["Addrs"] if f"/tcp/{post.port}/" in addr]}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        del format, args
