"""Helia fetches a large file over HTTP from a relay that it finds by the origin's delegated routing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farcast.tests.interop.coast import BULK_BYTES, Coast
from farcast.tests.interop.signpost import Signpost
from farcast.tests.wire.street import ROOT

SCRIPT = ROOT / "tests" / "interop" / "helia" / "fetch.js"

Need = Callable[..., str]


def test_helia_gets_fifty_mebibytes_from_a_relay(coast: Coast, need: Need) -> None:
    node = Path(need("helia-node"))
    post = Signpost(coast.routing, coast.relay.port)
    before = coast.relay.metric("farcast_node_http_sent_bytes_total")
    try:
        done = subprocess.run(
            [node, "--input-type=module"],
            cwd=node.parent / "helia",  # where its packages are
            env={"FARCAST_ROUTER": post.url, "FARCAST_CID": str(coast.bulk[0]), "FARCAST_PATH": "film.bin"},
            input=SCRIPT.read_bytes(),
            capture_output=True,
            timeout=90,
            check=False,
        )
    finally:
        post.close()
    assert done.returncode == 0, done.stderr.decode()
    got: dict[str, Any] = json.loads(done.stdout)
    assert (got["bytes"], got["sha256"]) == (BULK_BYTES, coast.bulk_sha256)
    assert coast.relay.metric("farcast_node_http_sent_bytes_total") - before >= BULK_BYTES
