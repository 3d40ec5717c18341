"""A CDN stand-in: a small caching HTTP pull zone, run as its own process by the demo.

``python -m farcast.node.demo.cdn PORT ORIGIN_URL`` caches what the origin marks cacheable, in
memory, and counts what it sent on ``/cdn-metrics``.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import OrderedDict
from typing import NamedTuple

import aiohttp
from aiohttp import web

CACHE_BYTES = 256 << 20
OBJECT_LIMIT_BYTES = 8 << 20
UPSTREAM_TIMEOUT_S = 10.0
_MAX_AGE = re.compile(r"max-age=(\d+)")
_KEPT = ("content-type", "etag", "cache-control", "access-control-allow-origin", "x-content-type-options")


class Cached(NamedTuple):
    """One stored answer and until when it is fresh, in monotonic seconds."""

    headers: dict[str, str]
    body: bytes
    fresh_until: float


class PullZone:
    """Fetches from one origin, one flight per URL, and serves repeats from memory."""

    def __init__(self, origin_url: str) -> None:
        self._origin = origin_url.rstrip("/")
        self._cache: OrderedDict[str, Cached] = OrderedDict()
        self._held_bytes = 0
        self._flights: dict[str, asyncio.Future[Cached | None]] = {}
        self._http: aiohttp.ClientSession | None = None
        self.sent_bytes = 0
        self.hits = 0
        self.misses = 0

    async def open(self, app: web.Application) -> None:
        """Open the client side."""
        del app
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S), auto_decompress=False
        )

    async def close(self, app: web.Application) -> None:
        """Close the client side."""
        del app
        if self._http is not None:
            await self._http.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer from the cache or the origin; 502 where the origin does not answer."""
        url = request.raw_path
        found = self._cache.get(url)
        if found is not None and found.fresh_until > time.monotonic():
            self._cache.move_to_end(url)
            self.hits += 1
        else:
            self.misses += 1
            found = await self._collapsed(url)
        if found is None:
            return web.Response(status=502, text="the origin did not answer with this object\n")
        self.sent_bytes += len(found.body)
        return web.Response(body=found.body, headers=found.headers)

    async def metrics(self, request: web.Request) -> web.Response:
        """Say what was sent, in Prometheus text."""
        del request
        lines = [
            "# HELP farcast_cdn_sent_bytes_total Body bytes sent to clients.",
            "# TYPE farcast_cdn_sent_bytes_total counter",
            f"farcast_cdn_sent_bytes_total {self.sent_bytes}",
            "# HELP farcast_cdn_requests_total Requests by cache result.",
            "# TYPE farcast_cdn_requests_total counter",
            f'farcast_cdn_requests_total{{result="hit"}} {self.hits}',
            f'farcast_cdn_requests_total{{result="miss"}} {self.misses}',
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _collapsed(self, url: str) -> Cached | None:
        flight = self._flights.get(url)
        if flight is None:
            flight = asyncio.ensure_future(self._fetch(url))
            self._flights[url] = flight
            flight.add_done_callback(lambda _: self._flights.pop(url, None))
        return await asyncio.shield(flight)

    async def _fetch(self, url: str) -> Cached | None:
        assert self._http is not None
        try:
            async with self._http.get(self._origin + url, allow_redirects=False) as response:
                body = await response.content.read(OBJECT_LIMIT_BYTES + 1)
                while chunk := await response.content.read(OBJECT_LIMIT_BYTES + 1 - len(body)):
                    body += chunk
                if response.status != 200 or len(body) > OBJECT_LIMIT_BYTES:  # noqa: PLR2004 - only 200 is kept
                    return None
                headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
        except (aiohttp.ClientError, TimeoutError):
            return None
        age = _MAX_AGE.search(headers.get("cache-control", ""))
        found = Cached(headers, body, time.monotonic() + (float(age[1]) if age else 0.0))
        self._keep(url, found)
        return found

    def _keep(self, url: str, found: Cached) -> None:
        old = self._cache.pop(url, None)
        self._held_bytes += len(found.body) - (len(old.body) if old else 0)
        self._cache[url] = found
        while self._held_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._held_bytes -= len(dropped.body)


def main() -> None:
    """Serve ``sys.argv[1]`` (port) from ``sys.argv[2]`` (origin's base URL) until told to stop."""
    zone = PullZone(sys.argv[2])
    app = web.Application()
    app.on_startup.append(zone.open)
    app.on_cleanup.append(zone.close)
    app.router.add_get("/cdn-metrics", zone.metrics)
    app.router.add_get("/{path:.*}", zone.serve)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
