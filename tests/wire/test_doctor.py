"""`farcast doctor` on homes of every kind, running, stopped and broken, as a person runs it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.doctor.doctor import diagnose
from farcast.node.doctor.patient import examine
from farcast.tests.wire.street import Box, Ran, Street

SECONDS = 12.0
"""A visit ends within five seconds; the rest is starting Python on a busy machine."""


class Village(NamedTuple):
    """A running origin, a relay that runs and a node that does not, and the origin's port."""

    street: Street
    origin: Box
    relay: Box
    node: Path
    port: int


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Generator[Village]:
    street = Street(tmp_path_factory.mktemp("village"))
    port = free_port()
    home = street.home("origin")
    try:
        street.must("origin", "init", "--name", "Acme", "--endpoint", f"127.0.0.1:{port}", "--home", home)
        origin = street.start("origin", "origin", "run", settings={"FARCAST_LISTEN_PORT": str(port)})
        invite = street.must("origin", "invite", "--relay", "--home", home)["link"]
        relay_port = free_port()
        listen = {
            "FARCAST_LISTEN_PORT": str(relay_port),
            "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{relay_port}",
        }
        assert street.run("relay", "join", invite, "--home", street.home("relay"), settings=listen).code == 0
        relay = street.start("relay", "relay", "run", settings=listen)
        viewer = street.must("origin", "account", "add", "alice", "--home", home)["link"]
        street.must("join", viewer, "--home", street.home("node"))
        yield Village(street, origin, relay, street.home("node"), port)
    finally:
        street.close()


def visit(
    street: Street, home: Path, *, code: int, shift_s: int = 0, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return what the doctor says of a home, its checks by name."""
    started = time.monotonic()
    ran: Ran = street.run("doctor", "--home", home, "--json", shift_s=shift_s, settings=settings)
    assert time.monotonic() - started < SECONDS
    assert ran.code == code, ran
    found: dict[str, Any] = ran.json
    states = [check["state"] for check in found["checks"]]
    assert states == sorted(states, key=("bad", "warning", "ok").index)
    assert found["ok"] == ("bad" not in states) == (code == 0)
    for check in found["checks"]:
        assert check["sentence"], check
        assert check["state"] != "bad" or check["mend"], check
    return {**found, "checks": {check["name"]: check for check in found["checks"]}}


def copied(village: Village, tmp_path: Path) -> Path:
    """Return a copy of the node's home to break."""
    return Path(shutil.copytree(village.node, tmp_path / "node"))


def test_a_running_relay_and_origin_are_well(village: Village) -> None:
    for box, role in ((village.relay, "relay"), (village.origin, "origin")):
        found = visit(village.street, box.home, code=0)
        assert (found["role"], found["running"]) == (role, True)
        checks = found["checks"]
        for name in ("box", "listener", "origin", "udp", "keys", "disk", "settings", "clock"):
            assert checks[name]["state"] == "ok", checks[name]
        assert str(box.process.pid) in checks["box"]["sentence"]
    assert found["checks"]["origin"]["sentence"].endswith("by QUIC and TLS")


def test_a_stopped_node_is_looked_at_too_and_for_people_in_lines(village: Village) -> None:
    found = visit(village.street, village.node, code=0)
    assert not found["running"]
    assert found["checks"]["box"] == {
        "name": "box",
        "state": "warning",
        "sentence": f"no box runs in {village.node}",
        "mend": "farcast run",
    }
    assert found["checks"]["clock"]["sentence"] == "this clock agrees with the origin's"
    ran = village.street.run("doctor", "--home", village.node)
    lines = ran.out.splitlines()
    assert lines[0] == found["verdict"]
    assert lines[1].split()[:2] == ["warning", "box"]
    assert lines[2].strip() == "mend: farcast run"


def test_the_origin_gone_is_told_and_the_clock_is_judged_by_the_catalog(
    village: Village, tmp_path: Path
) -> None:
    village.street.run("doctor", "--home", village.relay.home)
    home = Path(shutil.copytree(village.relay.home, tmp_path / "relay"))
    (home / "admin.json").unlink()
    settings = {"FARCAST_NETWORK_ALLOW_PRIVATE": "false"}  # nothing private is dialled: unreachable
    found = visit(village.street, home, code=1, settings=settings)
    assert found["checks"]["origin"]["state"] == "bad"
    assert found["checks"]["udp"]["state"] == "warning"
    assert "not behind the catalog" in found["checks"]["clock"]["sentence"]
    found = visit(village.street, home, code=1, shift_s=-3 * 86_400, settings=settings)
    assert "at least 3 days slow" in found["checks"]["clock"]["sentence"]


@pytest.mark.parametrize(("shift_s", "said"), [(600, "10 min ahead of"), (-8_000, "2 h behind")])
def test_a_wrong_clock_is_found(village: Village, shift_s: int, said: str) -> None:
    clock = visit(village.street, village.node, code=1, shift_s=shift_s)["checks"]["clock"]
    assert said in clock["sentence"]
    assert "ntp" in clock["mend"]


def test_secrets_that_others_can_read_are_found(village: Village, tmp_path: Path) -> None:
    home = copied(village, tmp_path)
    (home / "identity.key").chmod(0o644)
    keys = visit(village.street, home, code=1)["checks"]["keys"]
    assert keys["mend"] == f"chmod 600 {home / 'identity.key'}"
    (home / "identity.key").unlink()
    keys = visit(village.street, home, code=1)["checks"]["keys"]
    assert keys["sentence"] == f"{home / 'identity.key'} is missing"


def test_a_wrong_setting_is_found_and_everything_else_still_looked_at(
    village: Village, tmp_path: Path
) -> None:
    home = copied(village, tmp_path)
    (home / "settings.toml").write_text("[store]\nquota_bytes = 5\n")
    checks = visit(village.street, home, code=1)["checks"]
    assert "quota_bytes" in checks["settings"]["sentence"]
    assert checks["keys"]["state"] == "ok"
    (home / "settings.toml").write_text('[store]\nquota_bytes = "900000 GB"\n')
    disk = visit(village.street, home, code=0)["checks"]["disk"]
    assert "quota_bytes" in disk["mend"]


def test_damaged_trust_and_a_home_that_joined_nobody_are_found(village: Village, tmp_path: Path) -> None:
    home = copied(village, tmp_path)
    (home / "trust" / "accepted").write_bytes(b"\x00")
    origin = visit(village.street, home, code=1)["checks"]["origin"]
    assert "is damaged" in origin["sentence"]
    shutil.rmtree(home / "trust")
    origin = visit(village.street, home, code=1)["checks"]["origin"]
    assert (origin["sentence"], origin["mend"]) == (
        "this box has joined no origin",
        "run `farcast join LINK`",
    )


def test_a_taken_port_is_found_before_the_box_starts(village: Village) -> None:
    listener = visit(
        village.street, village.node, code=1, settings={"FARCAST_LISTEN_PORT": str(village.port)}
    )["checks"]["listener"]
    assert f"port {village.port} is taken" in listener["sentence"]


def test_a_box_that_runs_and_answers_nothing_does_not_keep_the_doctor_waiting(
    village: Village, tmp_path: Path
) -> None:
    home = copied(village, tmp_path)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        where = mute.getsockname()[1]
        told = {"url": f"http://127.0.0.1:{where}/token", "port": where, "pid": os.getpid()}
        (home / "admin.json").write_text(json.dumps(told))
        (home / "admin.json").chmod(0o600)
        checks = visit(village.street, home, code=1)["checks"]
    assert checks["box"]["state"] == checks["listener"]["state"] == "bad"
    assert checks["keys"]["state"] == "ok"


def test_an_old_admin_file_is_no_running_box(village: Village, tmp_path: Path) -> None:
    home = copied(village, tmp_path)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    told = {"url": "http://127.0.0.1:9/token", "port": 9, "pid": int(gone.stdout)}
    (home / "admin.json").write_text(json.dumps(told))
    (home / "admin.json").chmod(0o600)
    assert not visit(village.street, home, code=0)["running"]


async def test_somebody_else_at_the_origins_address_is_told_from_silence(village: Village) -> None:
    patient = examine(village.node, village.street.environment())
    elsewhere = [source._replace(address=f"127.0.0.1:{village.relay.port}") for source in patient.origin]
    found = await diagnose(replace(patient, origin=elsewhere))
    await asyncio.sleep(0.2)  # TLS takes a round trip to say goodbye to a stranger
    origin = next(finding for finding in found.findings if finding.name == "origin")
    assert origin.sentence.startswith("somebody else answers where the origin should")
    assert not found.ok


def test_a_home_that_is_none_is_wrong_use(village: Village, tmp_path: Path) -> None:
    village.street.run("doctor", "--home", tmp_path / "nowhere").refused(2, "nowhere")
