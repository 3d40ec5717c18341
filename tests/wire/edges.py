"""Real caching proxies as CDNs: Varnish and nginx, something that spoils what they fetch, and CDN APIs.

The APIs take what Bunny and Cloudflare document, refuse everything else, and do to a Varnish what those
CDNs do to their edges.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import http.client
import http.server
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.street import until
from farcast.tests.wire.webserver import WebServer

START_S, STOP_S = 30.0, 10.0

VCL = """
vcl 4.1;
import std;
backend default { .host = "127.0.0.1"; .port = "%d"; .between_bytes_timeout = 5s; }
acl near { "127.0.0.1"; }
sub vcl_recv {
  if (req.method == "PURGE" || req.method == "BAN") {
    if (client.ip !~ near) { return (synth(405)); }
    if (req.method == "PURGE") { return (purge); }
    if (req.http.x-tag) {
      std.ban("obj.http.cdn-tag ~ (^|,)" + req.http.x-tag + "(,|$)");
      std.ban("obj.http.cache-tag ~ (^|,)" + req.http.x-tag + "(,|$)");
    } else { std.ban("obj.http.x-url ~ ^" + req.url); }
    return (synth(200, "Banned"));
  }
}
sub vcl_backend_response { set beresp.http.x-url = bereq.url; }
sub vcl_deliver {
  unset resp.http.x-url;
  if (obj.hits > 0) { set resp.http.x-cache = "HIT"; } else { set resp.http.x-cache = "MISS"; }
}
"""

NGINX = """
daemon off; pid {folder}/pid; error_log stderr warn; worker_processes 1; user root;
events {{ worker_connections 256; }}
http {{
  access_log off; {paths}
  proxy_cache_path {folder}/cache levels=1:2 use_temp_path=off keys_zone=zone:4m max_size=256m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache zone; proxy_cache_lock on; proxy_cache_revalidate on;
      add_header X-Cache-Status $upstream_cache_status always;
    }}
  }}
}}
"""


class Edge:
    """A caching proxy in a process of its own, in front of a port of loopback."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        """Start it and wait until ``port`` is listened on."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.place = f"127.0.0.1:{port}"
        self._log = (folder / "edge.log").open("wb")
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )

        def listens() -> bool:
            assert self._process.poll() is None, (folder / "edge.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens, START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def varnish(program: str, folder: Path, upstream: int) -> Edge:
    """Run a Varnish that keeps all it may in memory, purges for loopback, and says HIT or MISS."""
    folder.mkdir()
    (folder / "edge.vcl").write_text(VCL.strip() % upstream)
    port = free_port()
    command = [
        program, "-F", "-a", f"127.0.0.1:{port}", "-f", str(folder / "edge.vcl"), "-s", "malloc,128m",
        "-n", str(folder / "run"), "-j", "none", "-p", "thread_pool_min=10", "-p", "thread_pools=1",
    ]  # fmt: skip
    return Edge(command, folder, port)


def nginx(program: str, folder: Path, upstream: int) -> Edge:
    """Run an nginx with a proxy cache on disk, which cannot be purged."""
    folder.mkdir()
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream, paths=paths))
    return Edge([program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"], folder, port)


class Spoiler(WebServer):
    """Stands between an edge and the origin, and spoils what the edge then keeps for an hour.

    ``way`` is '', wrong (one bit), page (an error page that says 200), short (whole, but of half the bytes),
    long (more than any block has), gzip, missing, broken (a 503), moved, or cut (the connection ends).
    ``passed`` counts the requests by path.
    """

    def __init__(self, origin: int) -> None:
        super().__init__(_Spoiling)
        self.origin = origin
        self.way = ""
        self.passed: list[str] = []
        self.start()


def spoilt(way: str, headers: dict[str, str], data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return an answer as a bad edge makes of it."""
    match way:
        case "missing":
            return 404, headers, b"gone?"
        case "broken":
            return 503, headers, b"busy"
        case "moved":
            return 302, {"location": "http://127.0.0.1:9/elsewhere"}, b""
        case "gzip":
            return 200, {**headers, "content-encoding": "gzip"}, gzip.compress(data)
        case "page":
            return 200, {"content-type": "text/html"}, b"<h1>Error 522</h1>"
        case _:
            bodies = {
                "wrong": bytes([data[0] ^ 1]) + data[1:],
                "short": data[: len(data) // 2],
                "long": data + bytes(4 << 20),
            }
            return 200, headers, bodies.get(way, data)


class _Spoiling(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        spoiler = self.server
        assert isinstance(spoiler, Spoiler)
        spoiler.passed.append(self.path)
        fields = {name: text for name, text in self.headers.items() if name.lower() != "connection"}
        status, headers, data = fetch(spoiler.origin, self.command, self.path, fields)
        if spoiler.way and status == 200:
            kept = {name: text for name, text in headers.items() if name == "content-type"}
            status, headers, data = spoilt(spoiler.way, kept, data)
            headers["cache-control"] = "public, max-age=3600"
        self.send_response(status)
        for name, text in headers.items():
            if name not in ("content-length", "date", "server", "connection", "transfer-encoding"):
                self.send_header(name, text)
        if status != 304:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            cut = spoiler.way == "cut" and status == 200
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

    do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
        del format, args


class Gate(WebServer):
    """Lets in who has a token, as Bunny's edge or Cloudflare's rule would, and asks the cache behind it."""

    def __init__(self, kind: str, key: str, behind: int) -> None:
        super().__init__(_Gated)
        self.kind = kind
        self.key = key
        self.behind = behind
        self.start()

    def admits(self, target: str) -> str:
        """Return the target without its token; empty where it is not let in."""
        return self._bunny(target) if self.kind == "bunny" else self._cloudflare(target)

    def _bunny(self, target: str) -> str:
        first, slash, rest = target[1:].partition("/")
        fields = dict(pair.split("=", 1) for pair in first.split("&") if "=" in pair)
        if "bcdn_token" not in fields or int(fields["expires"]) < time.time():
            return ""
        signed = {name: unquote(text) for name, text in fields.items() if name.startswith("token_")}
        message = signed["token_path"] + fields["expires"]
        message += "&".join(f"{name}={signed[name]}" for name in sorted(signed))
        good = f"HS256-{self._mac(message)}" == fields["bcdn_token"]
        return slash + rest if good and f"{slash}{rest}".startswith(signed["token_path"]) else ""

    def _cloudflare(self, target: str) -> str:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        match = re.fullmatch(r"(.+)(.*)(\d{10})-(.{43,})", "/" + query.pop("verify", ""))
        if match is None or int(match[3]) + 86_400 <= time.time():
            return ""
        return f"{url.path}?{urlencode(query)}" if self._mac(match[1] + match[3]) == match[4] else ""

    def _mac(self, message: str) -> str:
        mac = hmac.digest(self.key.encode(), message.encode(), "sha256")
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")


class _Gated(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        gate = self.server
        assert isinstance(gate, Gate)
        target = gate.admits(self.path)
        status, headers, data = fetch(gate.behind, "GET", target) if target else (403, {}, b"no token")
        self.send_response(status)
        for name in ("content-type", "etag", "cache-control"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
        del format, args


class Told(NamedTuple):
    """One request that an API was sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Api(WebServer):
    """What Bunny and Cloudflare document of purging, done to the Varnish at ``edge``.

    ``refusals`` are statuses to answer first, one a request; ``told`` is all that came.
    """

    KEY = "0d7f9e3a-an-api-key"
    ZONE = "023e105f4ecef8ad9ca31a8372d0c353"

    def __init__(self, edge: int) -> None:
        super().__init__(_Purging)
        self.edge = edge
        self.told: list[Told] = []
        self.refusals: list[int] = []
        self.lock = threading.Lock()
        self.start()


class _Purging(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        api = self.server
        assert isinstance(api, Api)
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): text for name, text in self.headers.items()}
        with api.lock:
            api.told.append(Told(self.command, self.path, headers, body))
            refusal = api.refusals.pop(0) if api.refusals else 0
        if self.path.startswith("/client/v4/"):
            self._cloudflare(api, headers, body, refusal)
        else:
            self._bunny(api, headers, body, refusal)

    def _bunny(self, api: Api, headers: dict[str, str], body: bytes, refusal: int) -> None:
        if headers.get("accesskey") != api.KEY:
            self._say(401, {"Message": "Authorization has been denied for this request."})
            return
        if refusal:
            self._say(refusal, {"Message": "Too many requests"})
            return
        url = urlsplit(self.path)
        if url.path == "/purge" and not body:
            asked = urlsplit(parse_qs(url.query)["url"][0])
            path = asked.path + (f"?{asked.query}" if asked.query else "")
            self._edge(api, "BAN" if path.endswith("/") else "PURGE", path, {})
            self._say(200, None)
        elif re.fullmatch("/pullzone/[0-9]+/purgeCache", url.path) and set(json.loads(body)) == {"CacheTag"}:
            self._edge(api, "BAN", "/", {"x-tag": json.loads(body)["CacheTag"]})
            self._say(204, None)
        else:
            self._say(404, {"Message": "Not found"})

    def _cloudflare(self, api: Api, headers: dict[str, str], body: bytes, refusal: int) -> None:
        def fail(status: int, code: int, message: str) -> None:
            error = {"code": code, "message": message}
            self._say(status, {"success": False, "errors": [error], "messages": [], "result": None})

        if headers.get("authorization") != f"Bearer {api.KEY}":
            fail(401, 10000, "Authentication error")
        elif refusal:
            fail(refusal, 10013, "Rate limited")
        elif self.path != f"/client/v4/zones/{api.ZONE}/purge_cache":
            fail(404, 7003, "Could not route to the zone")
        elif headers.get("content-type") != "application/json":
            fail(400, 6003, "Invalid request headers")
        else:
            what: dict[str, list[str]] = json.loads(body)
            ((kind, values),) = what.items()
            assert kind in ("files", "tags")
            assert 0 < len(values) <= 100
            for value in values:
                if kind == "tags":
                    self._edge(api, "BAN", "/", {"x-tag": value})
                else:
                    url = urlsplit(value)
                    self._edge(api, "PURGE", url.path + (f"?{url.query}" if url.query else ""), {})
            self._say(200, {"success": True, "errors": [], "messages": [], "result": {"id": api.ZONE}})

    def _edge(self, api: Api, method: str, path: str, headers: dict[str, str]) -> None:
        status, _, _ = fetch(api.edge, method, path, headers)
        assert status == 200, (method, path, status)

    def _say(self, status: int, document: Any) -> None:  # noqa: ANN401 - JSON
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", "1")
        if data:
            self.send_header("content-type", "application/json")
        if status != 204:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
        del format, args


def fetch(
    port: int, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Make one request to a port of loopback, following nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        fields = {name.lower(): text for name, text in answer.getheaders()}
        return answer.status, fields, answer.read()
    finally:
        connection.close()
