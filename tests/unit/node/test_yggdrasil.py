# pyright: reportPrivateUsage=false
"""An admin socket is asked within a second and 256 KiB, and understood whichever version answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.node import yggdrasil
from farcast.node.doctor.machine import check_overlay
from farcast.node.doctor.patient import Patient
from farcast.node.overlay import Overlay
from farcast.node.settings import Settings
from farcast.node.yggdrasil import LIMIT_BYTES, Told, _address, _decoded, _Failure, _peers, ask, is_place

ONE_PEER: list[dict[str, str]] = [{}]
KEY = "35b798af37ade5e62614b42f080d630db101fe1459ac5e133d61c2982b54f952"
OWN = "203:f00::1"
SELF = {"build_version": "0.4.7", "key": KEY, "address": OWN, "coords": [1], "subnet": "303:f00::/64"}
NEWER = {
    "build_version": "0.5.12",
    "key": KEY,
    "address": OWN,
    "routing_entries": 3,
    "subnet": "303:f00::/64",
}
OLDER = {"self": {OWN: {"build_version": "0.3.16", "coords": "[1 2]", "subnet": "303:f00::/64"}}}


class Socket:
    """An admin socket that gives each request the answer that ``says`` makes of its name."""

    def __init__(self, family: int, where: str | tuple[str, int], says: Callable[[str], bytes]) -> None:
        self._listener = socket.socket(family)
        self._listener.bind(where)
        self._listener.listen()
        self.name = self._listener.getsockname()
        self._says = says
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Go."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                with line, suppress(OSError):
                    request = json.loads(line.recv(4_096))["request"]
                    line.sendall(self._says(request))


def answers(**bodies: object) -> Callable[[str], bytes]:
    """Return what a daemon says that knows some requests."""

    def says(request: str) -> bytes:
        found = bodies.get(request)
        said = (
            {"status": "error", "error": "no"} if found is None else {"status": "success", "response": found}
        )
        return json.dumps({**said, "request": {"request": request}}).encode() + b"\n"

    return says


def always(answer: bytes) -> Callable[[str], bytes]:
    """Return what says the same to everything."""

    def says(request: str) -> bytes:
        del request
        return answer

    return says


def is_own(host: str) -> bool:
    """Say whether this machine can listen there, as the tests want it."""
    return host == OWN


def is_nowhere(host: str) -> bool:
    """Say that it can listen nowhere."""
    del host
    return False


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Callable[[Callable[[str], bytes]], str]]:
    """Return what makes an admin socket and says where it is."""
    made = list[Socket]()

    def make(says: Callable[[str], bytes]) -> str:
        made.append(Socket(socket.AF_UNIX, str(tmp_path / f"{len(made)}.sock"), says))
        return f"unix://{made[-1].name}"

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("own", "peers", "count"),
    [
        (SELF, [{"address": "202::2"}, {"address": "202::3"}], 2),
        (NEWER, [{"address": "202::2", "up": True}, {"remote": "tls://far:1", "up": False}], 1),
        (OLDER, {OWN: {"port": 0}, "202::2": {"port": 1}}, 1),
        (SELF, None, 0),
    ],
)
def test_each_version_is_understood(
    serve: Callable[[Callable[[str], bytes]], str], own: object, peers: object, count: int
) -> None:
    assert ask(serve(answers(getself=own, getpeers={"peers": peers}))) == Told(OWN, count, "ok")


def test_it_answers_over_tcp_too_and_need_not_name_its_peers() -> None:
    made = Socket(socket.AF_INET, ("127.0.0.1", 0), answers(getself=SELF))
    try:
        assert ask(f"tcp://127.0.0.1:{made.name[1]}") == Told(OWN, None, "ok")
    finally:
        made.close()


@pytest.mark.parametrize(
    ("says", "reason", "sentence"),
    [
        (always(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "malformed", "is no Yggdrasil"),
        (always(b'{"status":"success","response":{"x":' + b"[" * 5_000), "malformed", "is no Yggdrasil"),
        (answers(getself={"key": KEY}), "malformed", "tells no address"),
        (answers(), "refused", "refused to tell"),
        (always(b" " * (LIMIT_BYTES + 1)), "oversized", "has no end"),
    ],
)
def test_what_is_none_is_one_sentence(
    serve: Callable[[Callable[[str], bytes]], str], says: Callable[[str], bytes], reason: str, sentence: str
) -> None:
    found = ask(serve(says))
    assert (found.address, found.reason) == ("", reason)
    assert sentence in found.trouble


def test_one_that_never_answers_is_waited_for_a_second_at_most(
    serve: Callable[[Callable[[str], bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yggdrasil, "DEADLINE_S", 0.2)
    over = threading.Event()

    def says(_: str) -> bytes:
        over.wait(30)
        return b""

    place = serve(says)
    try:
        assert ask(place).reason == "timeout"
    finally:
        over.set()


def test_where_nothing_listens_nothing_is_wrong_unless_a_setting_says_so(tmp_path: Path) -> None:
    gone = f"unix://{tmp_path}/gone.sock"
    assert ask(gone) == Told(trouble=f"nothing answers at {gone}, where [network] yggdrasil says so")


@given(st.binary(max_size=120))
def test_any_answer_is_one_or_one_failure(data: bytes) -> None:
    for answer in (data, b'{"status":"success","response":{"address":' + data + b"}}"):
        try:
            found = _decoded(answer, "here")
            assert len(_address(found)) <= 64
            _peers(found)
        except _Failure as failure:
            assert "Yggdrasil" in str(failure)  # noqa: PT017 - whichever it is


@pytest.mark.parametrize("text", ["unix:///run/y.sock", "tcp://localhost:9001", "tcp://[::1]:9001"])
def test_what_a_place_is(text: str) -> None:
    assert is_place(text)
    assert Settings.load(None, {"FARCAST_NETWORK_YGGDRASIL": text}).network.yggdrasil == text


@pytest.mark.parametrize(
    "text", ["/run/y.sock", "unix://run/y.sock", "tcp://x", "tcp://x:0", "tcp://x:9x", "x:1"]
)
def test_what_no_place_is(text: str) -> None:
    assert not is_place(text)


def test_an_address_counts_where_this_machine_can_listen_at_it(
    serve: Callable[[Callable[[str], bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, place = CollectorRegistry(), serve(answers(getself=SELF, getpeers={"peers": ONE_PEER}))
    for mine in (False, True):
        monkeypatch.setattr(yggdrasil, "bindable", is_own if mine else is_nowhere)
        overlay = Overlay()
        overlay.ask_at(place, registry if mine else None)
        overlay.settle()
        assert (OWN in overlay.addresses) is mine
        assert overlay.here is bool(overlay.addresses)
    assert registry.get_sample_value("farcast_node_overlay_answers_total", {"result": "ok"}) == 1


def test_the_doctor_says_what_is_wrong_with_yggdrasil(
    serve: Callable[[Callable[[str], bytes]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(place: str) -> tuple[str, str]:
        settings = Settings.load(None, {"FARCAST_NETWORK_YGGDRASIL": place, "FARCAST_LISTEN_HOST": "::"})
        seen = check_overlay(Patient(tmp_path, "relay", settings, None, None, None, [], "", 0, 0))
        return seen.state.label, seen.sentence

    place = serve(answers(getself=SELF, getpeers={"peers": ONE_PEER}))
    lonely = serve(answers(getself=SELF, getpeers={"peers": []}))
    assert "does not have that address" in found(place)[1], "it runs without an interface, or elsewhere"
    monkeypatch.setattr(yggdrasil, "bindable", is_own)
    assert found(place) == ("ok", f"this relay is reached at {OWN} in Yggdrasil too")
    assert found(lonely)[0] == "warning"
    assert "has no peers, so it reaches nobody" in found(lonely)[1]
    assert found(serve(answers())) == (
        "warning",
        f"Yggdrasil refused to tell its address at {serve_last(tmp_path)}",
    )


def serve_last(folder: Path) -> str:
    """Return where the socket made last is."""
    return f"unix://{max(folder.glob('*.sock'))}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_of_another_user_is_one_sentence(
    serve: Callable[[Callable[[str], bytes]], str], tmp_path: Path
) -> None:
    place = serve(answers(getself=SELF))
    tmp_path.chmod(0o700)
    os.seteuid(65_534)
    try:
        found = ask(place)
    finally:
        os.seteuid(0)
    assert (found.address, found.reason) == ("", "permission")
    assert (
        found.trouble
        == f"Yggdrasil runs here, but this user may not ask it at {place.removeprefix('unix://')}"
    )
