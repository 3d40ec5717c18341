"""Other people's HTTP/3: their client asks a relay of ours, ours asks their server."""

from __future__ import annotations

import asyncio
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import niquests
import pytest
from urllib3.exceptions import InsecureRequestWarning

from farcast.node.http.quic.channel import Channel
from farcast.protocol.cid import RAW, Cid
from farcast.tests.bench.http3 import caddy
from farcast.tests.bench.served import PUBLISHER, relay

Need = Callable[..., str]
MIB = 1 << 20

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "block").write_bytes(os.urandom(MIB))
    (folder / "film").write_bytes(os.urandom(64 * MIB))
    return folder


async def test_our_client_fetches_64_mib_from_caddy(need: Need, files: Path) -> None:
    whole = (files / "film").read_bytes()
    with caddy(need("caddy"), files.parent) as server:
        channel = await Channel.open(socket.AF_INET, ("127.0.0.1", server.port), PUBLISHER.key)
        authority = f"127.0.0.1:{server.port}"
        status, headers, body = await channel.request(
            "GET", authority, "/film", body=b"", headers={"range": "bytes=5-9"}, limit_bytes=MIB
        )
        assert (status, headers["content-range"], body) == (206, f"bytes 5-9/{len(whole)}", whole[5:10])
        async with asyncio.timeout(60):
            status, headers, body = await channel.request(
                "GET", authority, "/film", body=b"", headers={}, limit_bytes=len(whole)
            )
        assert (status, headers["server"], body == whole) == (200, "Caddy", True)
        channel.close()


def test_niquests_fetches_a_block_of_a_relay_by_http3(files: Path) -> None:
    block = (files / "block").read_bytes()
    with relay(files) as server, niquests.Session() as client:
        client.quic_cache_layer[("127.0.0.1", server.port)] = ("127.0.0.1", server.port)
        url = f"https://127.0.0.1:{server.port}/ipfs/{Cid.of(RAW, block)}?format=raw"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureRequestWarning)  # a box's name is its key
            answer = client.get(url, verify=False, timeout=20)
        assert (answer.status_code, answer.http_version) == (200, 30)
        assert answer.content == block
