from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.doctor import doctor, machine, reach
from farcast.node.doctor.apart import apart, resolve
from farcast.node.doctor.doctor import diagnose
from farcast.node.doctor.finding import Finding, State, verdict
from farcast.node.doctor.patient import Patient, examine, find_home
from farcast.node.home import Home, Role
from farcast.protocol.errors import UnreachableError, UsageError

T = TypeVar("T")


def _always(value: T) -> Callable[[object], T]:
    """Return what answers ``value`` whatever it is asked."""
    return lambda _: value


def home_of(tmp_path: Path, role: Role = "relay") -> Patient:
    """Return a patient whose home is whole and has joined nobody."""
    Home.create(tmp_path / role, role).close()
    environ = {"FARCAST_LISTEN_PORT": "0", "FARCAST_LISTEN_HOST": "127.0.0.1"}
    return examine(tmp_path / role, environ)


def set_network(patient: Patient, *announce: str, allow_private: bool = False) -> Patient:
    """Return the patient with another ``[network]``."""
    environ = {
        "FARCAST_NETWORK_ANNOUNCE": ",".join(announce),
        "FARCAST_NETWORK_ALLOW_PRIVATE": str(allow_private).lower(),
    }
    return replace(patient, settings=examine(patient.home, environ).settings)


@given(st.lists(st.sampled_from(State)))
def test_the_verdict_counts_what_is_not_fine(states: list[State]) -> None:
    said = verdict([Finding("x", state, "is so") for state in states])
    bad, warnings = states.count(State.BAD), states.count(State.WARNING)
    assert said.startswith("Healthy") == (bad + warnings == 0)
    assert (f"{bad} thing" in said and "wrong" in said) == (bad > 0) or bad == warnings
    assert ("could be better" in said) == (warnings > 0)


async def test_a_whole_home_that_joined_nobody_has_one_thing_wrong(tmp_path: Path) -> None:
    found = await diagnose(home_of(tmp_path))
    assert [finding.name for finding in found.findings if finding.state is State.BAD] == ["origin"]
    assert found.verdict.startswith("1 thing is wrong")
    assert found.lines()[0].split()[:2] == ["bad", "origin"]
    assert "farcast relay join LINK" in found.lines()[1]


async def test_a_standalone_relay_misses_no_origin(tmp_path: Path) -> None:
    patient = home_of(tmp_path)
    (patient.home / "standalone").touch()
    found = await diagnose(examine(patient.home, {"FARCAST_LISTEN_PORT": "0"}))
    assert found.ok, found
    assert [finding.name for finding in found.findings if "standalone relay" in finding.sentence] == [
        "origin",
        "udp",
        "clock",
    ]


async def test_a_check_that_hangs_or_breaks_is_a_finding_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_: Patient) -> Finding:
        time.sleep(3)
        raise AssertionError

    def fail(_: Patient) -> Finding:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(doctor, "DEADLINE_S", 0.3)
    monkeypatch.setitem(doctor.MACHINE, "disk", hang)
    monkeypatch.setitem(doctor.MACHINE, "keys", fail)
    started = time.monotonic()
    findings = {finding.name: finding for finding in (await diagnose(home_of(tmp_path))).findings}
    assert time.monotonic() - started < 2
    assert (findings["disk"].state, findings["keys"].state) == (State.BAD, State.BAD)
    assert "could not be told" in findings["disk"].sentence
    assert "Input/output error" in findings["keys"].sentence


async def test_work_apart_hands_over_its_value_or_its_error() -> None:
    assert await apart(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 // 0)
    assert (socket.AF_INET, ("127.0.0.1", 9)) in await resolve("localhost", 9)
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        await resolve("nowhere.invalid", 9)


@pytest.mark.parametrize(
    ("role", "limit", "state"),
    [
        ("node", 1_024, State.OK),
        ("relay", 1_024, State.WARNING),
        ("relay", 65_536, State.OK),
        ("node", 64, State.BAD),
    ],
)
def test_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role, limit: int, state: State
) -> None:
    monkeypatch.setattr(resource, "getrlimit", _always((limit, limit)))
    assert machine.check_descriptors(home_of(tmp_path, role)).state is state


@pytest.mark.parametrize(
    ("free", "state", "word"),
    [(10**8, State.BAD, "make room"), (10**9, State.WARNING, "quota_bytes"), (10**12, State.OK, "")],
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State, word: str) -> None:
    patient = home_of(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", _always(SimpleNamespace(free=free)))
    before = sorted(patient.home.iterdir())
    found = machine.check_disk(patient)
    assert (found.state, word in found.mend) == (state, True)
    assert sorted(patient.home.iterdir()) == before


def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    patient = replace(home_of(tmp_path), home=Path("/proc/self/fdinfo"))  # not even root writes here
    found = machine.check_disk(patient)
    assert found.state is State.BAD
    assert "cannot be written to" in found.sentence


@pytest.mark.parametrize(
    ("role", "hosts", "announce", "allow", "state"),
    [
        ("node", ["192.168.1.2"], (), False, State.OK),
        ("node", ["100.64.3.4"], (), False, State.OK),
        ("relay", ["192.168.1.2"], (), False, State.WARNING),
        ("relay", ["192.168.1.2"], (), True, State.OK),
        ("relay", ["100.64.3.4"], (), False, State.BAD),
        ("relay", ["100.64.3.4", "2a01:4f8::1"], (), False, State.OK),
        ("relay", ["192.168.1.2"], ("relay.example:7433",), False, State.OK),
        ("relay", ["192.168.1.2"], ("8.8.4.4:7433", "10.0.0.1:7433"), False, State.BAD),
        ("origin", ["8.8.4.4"], (), False, State.OK),
        ("node", [], (), False, State.OK),
    ],
)
def test_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: Role,
    hosts: list[str],
    announce: tuple[str, ...],
    allow: bool,  # noqa: FBT001
    state: State,
) -> None:
    monkeypatch.setattr(machine, "_hosts", lambda: hosts)
    patient = set_network(home_of(tmp_path, role), *announce, allow_private=allow)
    found = machine.check_address(patient)
    assert found.state is state, found
    assert bool(found.mend) == (state is not State.OK)


@pytest.mark.parametrize(
    ("error", "word"),
    [(PermissionError(1, "no"), "tcp_allowed_congestion_control"), (FileNotFoundError(2, "no"), "modprobe")],
)
def test_a_kernel_that_gives_no_bbr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, word: str
) -> None:
    class Refusing(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise error

    relay = home_of(tmp_path)
    node = home_of(tmp_path, "node")
    monkeypatch.setattr(socket, "socket", Refusing)
    found = machine.check_congestion(relay)
    assert found.state is State.WARNING
    assert word in found.mend
    assert machine.check_congestion(node).state is State.OK


def test_what_is_lost_of_a_home_is_named(tmp_path: Path) -> None:
    patient = home_of(tmp_path)
    assert machine.check_keys(patient).state is State.OK
    (patient.home / "token").write_text("secret")
    (patient.home / "token").chmod(0o640)
    assert "chmod 600" in machine.check_keys(patient).mend
    (patient.home / "token").unlink()
    patient.home.chmod(0o777)
    assert machine.check_keys(patient).state is State.WARNING
    (patient.home / "identity.key").write_bytes(b"short")
    assert machine.check_keys(examine(patient.home, {})).state is State.BAD
    (patient.home / "role").unlink()
    assert "`relay`" not in machine.check_keys(examine(patient.home, {})).mend
    assert machine.check_keys(examine(patient.home, {})).state is State.BAD


def test_the_home_there_is_is_found(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    with pytest.raises(UsageError, match="no box"):
        find_home(None, environ)
    Home.create(tmp_path / "farcast" / "relay", "relay").close()
    assert find_home(None, environ) == tmp_path / "farcast" / "relay"
    with pytest.raises(UsageError, match="nowhere"):
        find_home(tmp_path / "nowhere", environ)


async def test_a_checkpoint_of_tomorrow_means_a_slow_clock(tmp_path: Path) -> None:
    patient = home_of(tmp_path, "origin")
    origin = reach.Origin(patient, resolve, lambda: 1_000_000.0)
    try:
        assert (await origin.check_clock()).state is State.WARNING
        (patient.home / "catalog").mkdir()
        for made_s, state in ((1_000_000, State.OK), (1_000_121, State.BAD), (900_000, State.OK)):
            note = f"farcast/x/catalog\n1\nabc=\ntime {made_s * 1_000}\n\n- sig\n"
            (patient.home / "catalog" / "checkpoint").write_text(note)
            assert (await origin.check_clock()).state is state
        (patient.home / "catalog" / "checkpoint").write_bytes(b"\xff\x00time x")
        assert (await origin.check_clock()).state is State.WARNING
    finally:
        await origin.close()


async def test_the_listener_of_a_stopped_box_is_tried(tmp_path: Path) -> None:
    assert (await reach.check_listener(home_of(tmp_path))).state is State.OK
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environ = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_LISTEN_HOST": "127.0.0.1"}
        found = await reach.check_listener(examine(tmp_path / "relay", environ))
    assert found.state is State.BAD
    assert str(port) in found.sentence
    await asyncio.sleep(0)
