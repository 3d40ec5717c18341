"""A standalone relay keeps its operator's contract and deny files like any other."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from farcast.protocol import car
from farcast.protocol.cid import RAW, Cid
from farcast.relay.standalone import make_standalone
from farcast.tests.interop.trustless import farcast, made, running

BLOCKS = [(Cid.of(RAW, bytes([number]) * 5_000), bytes([number]) * 5_000) for number in range(4)]


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until ``holds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_standalone_relay_keeps_contract_and_deny_files(tmp_path: Path) -> None:
    home, path, deny = tmp_path / "home", tmp_path / "film.car", tmp_path / "bad.deny"
    path.write_bytes(car.header([BLOCKS[0][0]]) + b"".join(car.section(*block) for block in BLOCKS))
    made(home, [path])
    deny.write_text(f"/ipfs/{BLOCKS[1][0]}\n")
    settings = home / "settings.toml"
    settings.write_text(f'[deny]\nfiles = ["{deny}"]\n')
    target = f"/ipfs/{BLOCKS[0][0]}?format=raw"
    with running(home) as relay:
        open_at_once = [http.client.HTTPConnection("127.0.0.1", relay.port, timeout=20) for _ in range(40)]
        for connection in open_at_once:  # zero in the settings is no limit
            connection.request("GET", target)
        for connection in open_at_once:
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, BLOCKS[0][1])
            connection.close()
        for form in ("raw", "car"):
            refused = relay.ask(f"/ipfs/{BLOCKS[1][0]}?format={form}")
            assert (refused.status, json.loads(refused.body)["reason"]) == (410, "denied")
        deny.write_text(f"/ipfs/{BLOCKS[2][0]}\n")  # a deny file is read again
        until(lambda: relay.ask(f"/ipfs/{BLOCKS[2][0]}?format=raw").status == 410)
        assert relay.ask(f"/ipfs/{BLOCKS[1][0]}?format=raw").status == 200

        paused = farcast(home, "relay", "pause")
        assert paused.stdout.startswith("Paused")
        assert "directory" not in paused.stdout
        assert relay.ask(target).status == 503
        assert relay.ask("/readyz").status == 503
        assert farcast(home, "relay", "status").stdout.startswith("Paused")
        assert farcast(home, "relay", "resume").stdout.startswith("Serving again")
        assert relay.ask(target).status == 200

        settings.write_text("[contract]\nlan_exempt = false\nclient_connections = 1\n")
        os.kill(relay.pid, signal.SIGHUP)  # the contract is read again, without a connection lost

        def limited() -> bool:
            first, second = (
                http.client.HTTPConnection("127.0.0.1", relay.port, timeout=20) for _ in range(2)
            )
            first.request("GET", target)
            assert first.getresponse().read()
            second.request("GET", target)
            status = second.getresponse().status
            first.close()
            second.close()
            return status == 429

        until(limited)


def test_a_standalone_relay_with_a_bad_deny_file_does_not_start(tmp_path: Path) -> None:
    make_standalone(tmp_path / "home")
    (tmp_path / "home" / "settings.toml").write_text('[deny]\nfiles = ["/none.deny"]\n')
    done = farcast(tmp_path / "home", "relay", "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "[deny] files: /none.deny cannot be read" in done.stderr
