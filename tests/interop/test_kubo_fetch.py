"""A real Kubo gets a published title from a relay, which it finds by the origin's delegated routing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from farcast.origin.provider import GATEWAY
from farcast.tests.interop.coast import Coast
from farcast.tests.interop.kubo import Daemon

HEADER_LIMIT_BYTES = 1_536
"""Kubo refuses more than 2 KiB of response headers."""

Need = Callable[..., str]


@pytest.fixture
def kubo(need: Need, coast: Coast, tmp_path: Path) -> Generator[Daemon]:
    daemon = Daemon(need("ipfs"), tmp_path / "kubo", {"IPFS_HTTP_ROUTERS": coast.routing})
    yield daemon
    daemon.stop()


def ask(coast: Coast, cid: str, query: str = "", **headers: str) -> tuple[bytes, dict[str, str]]:
    request = Request(f"{coast.routing}/routing/v1/providers/{cid}{query}", headers=headers)
    with urlopen(request, timeout=10) as answer:
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def test_the_origin_names_relay_and_itself_for_what_its_catalog_reaches(coast: Coast) -> None:
    for cid in (coast.film["root_cid"], coast.film["manifest_cid"], str(coast.bulk)):
        body, headers = ask(coast, cid)
        relay, origin = json.loads(body)["Providers"]
        assert relay["Addrs"][0] == f"/ip4/127.0.0.1/tcp/{coast.relay.port}/http"
        assert relay["Addrs"][1:] == [
            f"/dns4/localhost/tcp/{port}/tls/http" for port in coast.fronts.values()
        ]
        assert origin["Addrs"] == [f"/ip4/127.0.0.1/tcp/{coast.origin.port}/http"]
        assert {relay["Schema"], origin["Schema"]} == {"peer"}
        assert relay["Protocols"] == origin["Protocols"] == [GATEWAY]
        assert relay["ID"] == coast.relay.api("/api/status")["peer_id"]
        assert headers["content-type"] == "application/json"
        assert "max-age=300" in headers["cache-control"]
    lines, headers = ask(coast, str(coast.bulk), "?filter-addrs=tls", Accept="application/x-ndjson")
    [line] = lines.splitlines()
    assert json.loads(line)["Addrs"] == relay["Addrs"][1:]
    assert headers["content-type"] == "application/x-ndjson"
    nobody, headers = ask(coast, "bafkqaaa")
    assert (json.loads(nobody), headers["cache-control"]) == ({"Providers": []}, "public, max-age=15")
    assert coast.origin.metric("farcast_origin_routing_answers_total", result="found") >= 4


def test_kubo_gets_the_whole_folder_from_the_relay_over_plain_http(
    coast: Coast, kubo: Daemon, tmp_path: Path
) -> None:
    before = coast.relay.metric("farcast_node_http_response_bytes_total")
    assert kubo.get(coast.film["root_cid"], tmp_path / "film") == coast.files()
    assert coast.relay.metric("farcast_node_http_response_bytes_total") - before >= 0
    assert int(kubo.run("cat", f"--length={1 << 20}", str(coast.bulk)).__len__()) == 1 << 20
