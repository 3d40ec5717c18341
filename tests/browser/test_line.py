"""The lines themselves: each fault is what it says, on real sockets, and the tap sees what went by."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Generator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from farcast.tests.browser.line import FAULTS, FLAP_S, SLOW_BYTES_S, Fault, Place
from farcast.tests.browser.matrix import LOST, MATRIX, PLAYERS, Loss, sample
from farcast.tests.browser.messages import Messages
from farcast.tests.browser.patchbay import PatchBay
from farcast.tests.wire.webserver import WebServer

BODY = bytes(range(256)) * 200
TIMEOUT_S = 0.8
LINE = "box"


class _Box(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = BODY if self.path != "/small" else b"ok"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - likewise

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as there
        del format, args


@pytest.fixture(scope="module")
def box() -> Generator[Place]:
    server = WebServer(_Box)
    server.start()
    yield Place("127.0.0.1", server.port)
    server.close()


@pytest.fixture
def bay(box: Place) -> Generator[PatchBay]:
    with PatchBay() as made:
        made.lay(LINE, 0, box)
        yield made


def connection(bay: PatchBay) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", bay.lines[LINE].port, timeout=TIMEOUT_S)


def get(made: http.client.HTTPConnection, path: str = "/") -> bytes:
    made.request("GET", path)
    return made.getresponse().read()


def half_of(made: http.client.HTTPConnection) -> bytes:
    made.request("GET", "/")
    answer = made.getresponse()
    data = answer.read(len(BODY) // 2)
    with pytest.raises((TimeoutError, http.client.IncompleteRead)):
        answer.read()
    return data


def test_a_line_without_fault_carries_everything_and_counts_the_bodies(bay: PatchBay) -> None:
    with closing(connection(bay)) as made:
        assert get(made) == BODY
        made.request("HEAD", "/")
        assert made.getresponse().read() == b""
        assert get(made, "/small") == b"ok"
    assert bay.lines[LINE].sent_bytes == len(BODY) + 2


def test_refuse_ends_open_connections_and_takes_no_new_ones_until_it_is_over(bay: PatchBay) -> None:
    with closing(connection(bay)) as made:
        assert get(made) == BODY
        bay.switch([LINE], Fault.REFUSE)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            get(made)
    with closing(connection(bay)) as made, pytest.raises(ConnectionRefusedError):
        get(made)
    bay.restore()
    with closing(connection(bay)) as made:
        assert get(made) == BODY


def test_hang_accepts_and_answers_nothing(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.HANG)
    with closing(connection(bay)) as made:
        made.connect()
        with pytest.raises(TimeoutError):
            get(made)
    bay.restore()
    with closing(connection(bay)) as made:
        assert get(made) == BODY


def test_hang_body_gives_the_head_and_half_of_the_body(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.HANG_BODY)
    with closing(connection(bay)) as made:
        assert half_of(made) == BODY[: len(BODY) // 2]


def test_truncate_ends_the_connection_after_half_of_the_body(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.TRUNCATE)
    with closing(connection(bay)) as made:
        made.request("GET", "/")
        with pytest.raises(http.client.IncompleteRead) as cut:
            made.getresponse().read()
    assert cut.value.partial == BODY[: len(BODY) // 2]


def test_slow_carries_ten_kilobytes_a_second_over_all_connections(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.SLOW)
    began = time.monotonic()
    with closing(connection(bay)) as one, closing(connection(bay)) as other:
        for made in (one, other):
            made.request("GET", "/")
        size = sum(len(made.getresponse().read(4_000)) for made in (one, other))
    took_s = time.monotonic() - began
    assert size / SLOW_BYTES_S * 0.8 <= took_s <= size / SLOW_BYTES_S * 2 + 0.5


def test_corrupt_changes_one_byte(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.CORRUPT)
    with closing(connection(bay)) as made:
        found = get(made)
    assert [at for at in range(len(BODY)) if found[at] != BODY[at]] == [len(BODY) // 2]


def test_flap_refuses_and_works_by_turns(bay: PatchBay) -> None:
    bay.switch([LINE], Fault.FLAP)
    with closing(connection(bay)) as made, pytest.raises(ConnectionRefusedError):
        get(made)
    time.sleep(FLAP_S + 0.3)
    with closing(connection(bay)) as made:
        assert get(made) == BODY


def test_the_tap_notes_when_which_bytes_came(bay: PatchBay, box: Place, tmp_path: Path) -> None:
    bay.point(box)
    made = http.client.HTTPConnection("127.0.0.1", bay.tap.port, timeout=TIMEOUT_S)
    with closing(made):
        assert get(made, "/t/watch/film/v/seg-00000.m4s?CMCD=x") == BODY
    (asked,) = bay.tap.asked
    deadline = time.monotonic() + TIMEOUT_S
    while not asked.done_at_s and time.monotonic() < deadline:
        time.sleep(0.01)  # the tap hands bytes on before it notes them
    assert asked.is_media
    assert (asked.status, asked.name("film"), asked.size_bytes) == ("200", "v/seg-00000.m4s", len(BODY))
    assert asked.digest.digest() == hashlib.sha256(BODY).digest()
    assert 0 <= asked.waited_s(0.0) < TIMEOUT_S
    file = tmp_path / "seg-00000.m4s"
    file.write_bytes(BODY)
    assert asked.is_published(file)
    file.write_bytes(BODY[:-1] + b"x")
    assert not asked.is_published(file)
    assert not asked.is_published(tmp_path / "absent")


def test_messages_are_cut_the_same_wherever_the_wire_cuts_them() -> None:
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 304 Not Modified\r\n\r\n"
    for size in range(1, len(wire) + 1):
        messages = Messages()
        pieces = [piece for at in range(0, len(wire), size) for piece in messages.feed(wire[at : at + size])]
        assert b"".join(piece.data for piece in pieces) == wire
        assert [piece.head.words[1] for piece in pieces if piece.head] == ["200", "304"]
        assert b"".join(piece.data for piece in pieces if not piece.head) == b"hello"


@pytest.mark.parametrize("seed", range(1, 20))
def test_every_tenth_of_the_matrix_holds_every_player_fault_and_loss(seed: int) -> None:
    drawn = sample(seed)
    assert drawn == sample(seed)
    assert len(drawn) == len(set(drawn)) == -(-len(MATRIX) // 10)
    assert {case.player for case in drawn} == set(PLAYERS)
    assert {case.fault for case in drawn} == set(FAULTS)
    assert {case.loss for case in drawn} == set(Loss) == set(LOST)
