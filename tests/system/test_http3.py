"""A browser asks a relay by HTTP/3 and plays from it: Chromium, whose connections have no ids."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from farcast.tests.system.chromium import Tab, tab_in
from farcast.tests.system.served import Served

Need = Callable[..., str]

DIGEST = """
(async () => {
  const answer = await fetch(%s);
  const digest = await crypto.subtle.digest("SHA-256", await answer.arrayBuffer());
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0"));
  return [answer.status, hex.join("")];
})()
"""
PROTOCOLS = """
["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
  .map((entry) => [new URL(entry.name).pathname, entry.nextHopProtocol])
"""

SEGMENTS = 4

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def port(served: Served) -> int:
    """Return the public port of a relay."""
    return int(json.loads((served.home("relay-1") / "admin.json").read_text())["port"])


@asynccontextmanager
async def browser(program: str, folder: Path, port: int) -> AsyncGenerator[Tab]:
    """Start a browser that asks this port by HTTP/3 alone and takes its certificate; logs to ``net.json``."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    public = load_pem_x509_certificate(pem.encode()).public_key()
    key = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    flags = (
        f"--origin-to-force-quic-on=127.0.0.1:{port}",
        f"--ignore-certificate-errors-spki-list={base64.b64encode(key.digest()).decode()}",
        f"--log-net-log={folder / 'net.json'}",
    )
    async with tab_in(program, folder / "profile", *flags) as tab:
        yield tab


def plain(port: int, path: str) -> bytes:
    """Fetch ``path`` by HTTP/1.1."""
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def network_events(log: Path) -> dict[str, int]:
    """Count the events of a net log by their names; its last line is missing where the browser was ended."""
    lines = log.read_text().splitlines()
    names = {
        number: name
        for name, number in json.loads(lines[0].rstrip(",") + "}")["constants"]["logEventTypes"].items()
    }
    counts: dict[str, int] = {}
    for line in lines[2:]:
        text = line.rstrip().rstrip(",").removesuffix("]}")
        if not text.startswith("{"):
            continue
        event: dict[str, Any] = json.loads(text)
        name = names[event["type"]]
        counts[name] = counts.get(name, 0) + 1
    return counts


async def test_chromium_fetches_a_title_from_a_relay_by_http3(
    served: Served, need: Need, tmp_path: Path, port: int
) -> None:
    master = f"/watch/{served.title}/master.m3u8"
    renditions = await asyncio.to_thread(_named, port, master)
    segments = await asyncio.to_thread(_named, port, renditions[0])
    paths = [master, *renditions, *segments[:SEGMENTS]]
    async with browser(need("chromium"), tmp_path, port) as tab:
        await tab.go(f"https://127.0.0.1:{port}/healthz")
        assert await tab.evaluate("document.body.innerText") == "ok\n"
        for each in paths:
            expected = hashlib.sha256(await asyncio.to_thread(plain, port, each)).hexdigest()
            assert await tab.evaluate(DIGEST % json.dumps(each)) == [200, expected]
        protocols = dict(await tab.evaluate(PROTOCOLS))
    assert set(paths) <= set(protocols)
    assert set(protocols.values()) == {"h3"}
    events = network_events(tmp_path / "net.json")
    assert events["HTTP3_HEADERS_DECODED"] >= len(paths)
    assert events["QUIC_SESSION_VERSION_NEGOTIATED"] >= 1


def _named(port: int, playlist: str) -> list[str]:
    """Return the paths that the playlist at a path names."""
    lines = plain(port, playlist).decode().splitlines()
    return [f"{playlist.rpartition('/')[0]}/{line}" for line in lines if line and not line.startswith("#")]
