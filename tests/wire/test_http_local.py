"""The loopback listener: token, Host and site checks, and file parts, over real sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.node.http.locallistener import LocalListener
from farcast.node.http.tally import HttpMetrics
from farcast.protocol.errors import UsageError

TOKEN = "0123456789abcdef"
SIZE = 3 << 20


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[tuple[LocalListener, bytes]]:
    whole = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(whole)

    async def file(_: Exchange) -> Answer:
        return Answer(200, {"content-type": "video/mp4"}, [FilePart(str(tmp_path / "file"), 0, SIZE)])

    async def events(_: Exchange) -> Answer:
        async def lines() -> AsyncIterator[bytes]:
            for at in range(3):
                await asyncio.sleep(0.01)
                yield b"data: %d\n\n" % at

        return Answer(200, {"content-type": "text/event-stream"}, lines())

    router = Router(Hosts(), token=TOKEN)
    router.route("GET", "/file", file)
    router.route("GET", "/events", events)
    router.route("GET", "/metrics", events, open=True)
    async with LocalListener(router, HttpMetrics(CollectorRegistry()), port=0) as listener:
        yield listener, whole


async def _get(port: int, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=fields) as response,
    ):
        return response.status, await response.read(), dict(response.headers)


async def test_a_file_is_served_whole_and_in_ranges(local: tuple[LocalListener, bytes]) -> None:
    listener, whole = local
    status, body, headers = await _get(listener.port, f"/{TOKEN}/file")
    assert (status, body == whole, headers["Content-Type"]) == (200, True, "video/mp4")
    assert (await _get(listener.port, f"/{TOKEN}/file", Range="bytes=-7"))[:2] == (206, whole[-7:])


async def test_open_ended_answers_are_chunked(local: tuple[LocalListener, bytes]) -> None:
    status, body, headers = await _get(local[0].port, f"/{TOKEN}/events")
    assert (status, body) == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    assert headers["Transfer-Encoding"] == "chunked"


async def test_only_the_token_opens_the_page(local: tuple[LocalListener, bytes]) -> None:
    port = local[0].port
    assert (await _get(port, "/file"))[0] == 404
    assert (await _get(port, "/wrong/file"))[0] == 404
    assert (await _get(port, "/metrics"))[0] == 200


async def test_other_hosts_and_other_sites_are_refused(local: tuple[LocalListener, bytes]) -> None:
    port = local[0].port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"192.0.2.1:{port}"):
        assert (await _get(port, f"/{TOKEN}/file", Host=host))[0] == 421
    for host in (f"localhost:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
        assert (await _get(port, f"/{TOKEN}/file", Host=host))[0] == 200
    assert (await _get(port, f"/{TOKEN}/file", Sec_Fetch_Site="cross-site"))[0] == 403


async def test_a_taken_port_names_the_key_to_change(local: tuple[LocalListener, bytes]) -> None:
    other = LocalListener(Router(Hosts()), HttpMetrics(CollectorRegistry()), port=local[0].port)
    with pytest.raises(UsageError, match=r"\[admin\] port"):
        async with other:
            pass
