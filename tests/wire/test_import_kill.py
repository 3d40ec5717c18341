"""An import killed at any moment leaves whole blocks, and doing it again goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.protocol import car
from farcast.protocol.cid import RAW, Cid
from farcast.relay.standalone import make_standalone

BLOCKS = 60


@pytest.mark.parametrize("held_at_kill", [1, 30])
def test_an_import_killed_leaves_whole_blocks_and_goes_on(tmp_path: Path, held_at_kill: int) -> None:
    home, path = tmp_path / "home", tmp_path / "film.car"
    blocks = [(Cid.of(RAW, data), data) for data in (os.urandom(300_000) for _ in range(BLOCKS))]
    path.write_bytes(car.header([blocks[0][0]]) + b"".join(car.section(*block) for block in blocks))
    make_standalone(home)
    command = [sys.executable, "-m", "farcast", "relay", "import", str(path), "--json", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((home / "blocks").glob("??/??/*"))) < held_at_kill and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    store = DiskStore(home, 1 << 30, CollectorRegistry())  # as the next start finds it
    before = store.held_blocks
    assert all(cid.matches(store.get(cid) or b"") for cid in store.cids())
    store.close()
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert (told["blocks"], told["new_blocks"]) == (BLOCKS, BLOCKS - before)
    store = DiskStore(home, 1 << 30, CollectorRegistry())
    assert set(store.pinned()["car/film"]) == {cid for cid, _ in blocks}
    assert all(store.get(cid) == data for cid, data in blocks)
    store.close()
