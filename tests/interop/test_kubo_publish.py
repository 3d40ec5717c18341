"""An origin puts its titles into a real Kubo, by its RPC API, and takes them out again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from farcast.node.demo.troupe import free_port
from farcast.origin import kubo as rpc
from farcast.origin.kubo import Kubo
from farcast.protocol import car
from farcast.protocol.cid import Cid
from farcast.protocol.errors import LocalError, RefusedError, RemoteError, UnreachableError
from farcast.protocol.unixfs import Block, FileWriter
from farcast.tests.interop.kubo import Daemon
from farcast.tests.wire.cinema import found, windows
from farcast.tests.wire.street import FILM, Street, draw

Need = Callable[..., str]


@pytest.fixture(scope="module")
def kubo(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    daemon = Daemon(need("ipfs"), tmp_path_factory.mktemp("kubo"))
    yield daemon
    daemon.stop()


@pytest.fixture
def street(tmp_path: Path) -> Generator[Street]:
    street = Street(tmp_path)
    street.must("origin", "init", "--endpoint", "127.0.0.1:9", "--home", street.home("origin"))
    street.must("origin", "payee", "add", "ada", "--home", street.home("origin"))
    yield street
    street.close()


def file(*, chunks: int = 3) -> tuple[Cid, list[Block]]:
    writer = FileWriter()
    blocks = writer.push(os.urandom(chunks << 20))
    last, entry = writer.finish()
    return entry.cid, blocks + last


async def archive(root: Cid, blocks: Sequence[Block]) -> AsyncIterator[bytes]:
    yield car.header([root])
    for cid, data in blocks:
        yield car.section(cid, data)


def kubo_row(done: dict[str, Any]) -> dict[str, Any]:
    """Return what an action that took a title away says of Kubo."""
    [row] = [row for row in done["tiers"] if row["tier"] == "kubo"]
    return dict(row)


def test_what_is_published_lies_in_kubo_until_it_is_retired(
    street: Street, kubo: Daemon, tmp_path: Path
) -> None:
    street.settings["FARCAST_KUBO_RPC"] = kubo.rpc
    home = street.home("origin")
    film = draw(tmp_path / "film.mp4", *FILM)
    ran = street.run("origin", "publish", film, "--preset", "ultrafast", "--home", home)
    assert "  kubo      pinned in Kubo 0.4" in ran.out, ran
    again = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
    assert again["kubo"] == {
        "rpc": kubo.rpc, "version": again["kubo"]["version"], "pinned": True, "announced": False, "error": "",
    }  # fmt: skip
    assert {again["root_cid"], again["manifest_cid"]} <= kubo.pins()
    found = kubo.get(again["root_cid"], tmp_path / "got", "--offline")
    folder = Path(again["folder"])
    assert found == {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    (tmp_path / "film.toml").write_text('title = "film"\nname = "Another name"\n')
    renamed = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
    twin = street.must("origin", "publish", film, "--title", "twin", "--preset", "ultrafast", "--home", home)
    assert (renamed["version"], renamed["root_cid"], twin["root_cid"]) == (
        2,
        again["root_cid"],
        again["root_cid"],
    )
    pins = kubo.pins()
    assert {renamed["root_cid"], renamed["manifest_cid"], twin["manifest_cid"]} <= pins
    assert again["manifest_cid"] not in pins  # superseded, while its folder lives on
    retired = street.must("origin", "retire", "film", "--home", home)
    assert kubo_row(retired)["state"] == "unpinned"
    assert renamed["manifest_cid"] not in kubo.pins()
    assert renamed["root_cid"] in kubo.pins()  # the twin's too
    denied = street.must("origin", "deny", "twin", "--home", home)
    assert kubo_row(denied)["name"] == kubo.rpc
    assert kubo_row(denied)["seconds"] >= 0
    assert not {renamed["root_cid"], renamed["manifest_cid"], twin["manifest_cid"]} & kubo.pins()


def test_kubo_has_ciphertext_alone_of_a_title_that_needs_a_ticket(
    street: Street, need: Need, tmp_path: Path
) -> None:
    kubo = Daemon(need("ipfs"), tmp_path / "kubo")
    try:
        street.settings["FARCAST_KUBO_RPC"] = kubo.rpc
        home, film = street.home("origin"), draw(tmp_path / "film.mp4", *FILM)
        (tmp_path / "film.toml").write_text('access = "ticket"\n')
        done = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        folder = Path(done["folder"])
        segments = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.m4s")}
        assert len(segments) >= 8
        got = kubo.get(done["root_cid"], tmp_path / "got", "--offline")
        for path, clear in segments.items():
            assert 1 <= len(got[path]) - len(clear) <= 16
            address = f"{kubo.gateway}/ipfs/{done['root_cid']}/{path}"
            with urlopen(address, timeout=20) as answer:  # noqa: S310 - loopback
                assert answer.read() == got[path]
        assert b'#EXT-X-KEY:METHOD=AES-128,URI="/v1/keys/' in got["audio/index.m3u8"]
        assert got["poster.jpg"] == (folder / "poster.jpg").read_bytes()
        stored = kubo.stored
        assert len(stored) > sum(map(len, segments.values()))
        assert not found(windows(segments.values()), stored)
    finally:
        kubo.stop()


def test_a_running_origin_publishes_all_the_same_while_kubo_is_away(street: Street, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    home = street.home("origin")
    box = street.start("origin", "origin", "run", settings={"FARCAST_KUBO_RPC": away})
    film = draw(tmp_path / "film.mp4", *FILM)
    ran = street.run("origin", "publish", film, "--preset", "ultrafast", "--home", home)
    assert ran.code == 0
    assert f"warning: Kubo at {away} cannot be reached" in ran.err
    assert "Published film version 1" in ran.out
    assert f"not put into {away}; publish again" in ran.out
    assert street.must("origin", "list", "--home", home)["titles"]
    assert box.metric("farcast_origin_kubo_publishes_total", result="unreachable") == 1
    retired = street.must("origin", "retire", "film", "--home", home)
    assert kubo_row(retired) == {
        "tier": "kubo",
        "name": away,
        "state": "unreachable",
        "seconds": None,
        "until": "",
    }


async def test_a_car_that_lacks_a_leaf_is_not_called_pinned(
    kubo: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "PIN_LEAST_S", 2.0)
    root, blocks = file()
    async with Kubo(kubo.rpc) as client:
        with pytest.raises(RemoteError, match="did not pin") as caught:
            await client.import_car([root], archive(root, blocks[1:]), 3 << 20)
        assert caught.value.reason == "not_pinned"
        assert str(root) not in kubo.pins()
        assert (
            await client.import_car([root], archive(root, blocks[:1]), 1 << 20) == 1
        )  # the leaf alone mends it
        assert str(root) in kubo.pins()
        assert await client.unpin(root)
        assert not await client.unpin(root)


async def test_a_car_that_is_spoiled_or_breaks_off_pins_nothing(kubo: Daemon) -> None:
    root, blocks = file()

    async def lost() -> AsyncIterator[bytes]:
        yield car.header([root])
        yield car.section(*blocks[0])
        raise LocalError("a block has left the store", reason="missing_block")

    spoiled = [(blocks[0][0], bytes(1 << 20)), *blocks[1:]]
    async with Kubo(kubo.rpc) as client:
        with pytest.raises(RefusedError, match="refused dag/import"):
            await client.import_car([root], archive(root, spoiled), 3 << 20)
        with pytest.raises(LocalError, match="left the store"):
            await client.import_car([root], lost(), 3 << 20)
    assert str(root) not in kubo.pins()


class Garbage(ThreadingHTTPServer):
    """Something that is no Kubo and says ``words`` to everything."""

    daemon_threads = True
    words, status, chunks = b"", 200, 1


class _Say(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        self.close_connection = True
        if self.headers["transfer-encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
        self.send_response(server.status)
        self.end_headers()
        try:
            for _ in range(server.chunks):
                self.wfile.write(server.words)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        del format, args


@pytest.fixture
def garbage() -> Generator[Garbage]:
    server = Garbage(("127.0.0.1", 0), _Say)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "words", "chunks", "reason"),
    [
        (200, b"<html>hello</html>", 1, "not_kubo"),
        (200, b'{"Version": 7}', 1, "not_kubo"),
        (200, b"", 1, "not_kubo"),
        (200, b"x" * 65_536, 64, "too_large"),
        (404, b"404 page not found", 1, "refused"),
        (403, b'{"Message": "403 - Forbidden\\n\\nno", "Code": 0, "Type": "error"}', 1, "refused"),
        (301, b"", 1, "refused"),
    ],
)
async def test_what_is_no_kubo_is_found_out_in_one_sentence(
    garbage: Garbage, status: int, words: bytes, chunks: int, reason: str
) -> None:
    garbage.words, garbage.status, garbage.chunks = words, status, chunks
    base = f"http://127.0.0.1:{garbage.server_address[1]}"
    async with Kubo(base) as client:
        with pytest.raises(RemoteError) as caught:
            await client.version()
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert base in str(caught.value)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "not_pinned"),
        ([{"Stats": {"BlockCount": 3}}], "not_pinned"),
        ([{"Root": {"Cid": {"/": "ROOT"}, "PinErrorMsg": "no"}}, {"Stats": {"BlockCount": 3}}], "not_pinned"),
        ([{"Root": {"Cid": {"/": "ROOT"}, "PinErrorMsg": ""}}], "malformed"),
        ([["what"]], "malformed"),
    ],
)
async def test_an_import_is_believed_only_where_the_root_is_named_and_counted(
    garbage: Garbage, words: list[Any], reason: str
) -> None:
    root, blocks = file(chunks=1)
    garbage.words = "".join(json.dumps(line) + "\n" for line in words).replace("ROOT", str(root)).encode()
    async with Kubo(f"http://127.0.0.1:{garbage.server_address[1]}") as client:
        with pytest.raises(RemoteError) as caught:
            await client.import_car([root], archive(root, blocks), 1 << 20)
    assert caught.value.reason == reason


async def test_a_kubo_that_says_nothing_is_given_up(
    garbage: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "CALL_S", 0.3)
    held = threading.Event()

    def wait(_: object) -> None:
        held.wait(5)

    monkeypatch.setattr(_Say, "do_POST", wait)
    async with Kubo(f"http://127.0.0.1:{garbage.server_address[1]}") as client:
        with pytest.raises(UnreachableError, match="silent") as caught:
            await client.version()
        assert caught.value.reason == "timeout"
    held.set()
