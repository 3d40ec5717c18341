"""Every public path on every box, over plain HTTP/1.1 with a client of the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.protocol import car
from farcast.protocol.catalog import Page
from farcast.protocol.cid import Cid
from farcast.protocol.codec import decode
from farcast.protocol.unixfs import content, leaves, resolve
from farcast.tests.system.served import Served

RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"
MSGPACK, PROBLEM = "application/vnd.farcast+msgpack", "application/problem+json"
PLAYLIST, SEGMENT = "application/vnd.apple.mpegurl", "video/iso.segment"
PUBLIC = ("origin", "relay-1", "relay-2", "neighbour", "node")
BODY_LIMIT_BYTES = 64 << 20

Need = Callable[..., str]

pytestmark = pytest.mark.timeout(240)


class Reply(NamedTuple):
    """One answer, whole; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    place = urlsplit(url)
    assert place.hostname is not None
    line = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        line.request(method, f"{place.path}?{place.query}" if place.query else place.path, body, named)
        answer = line.getresponse()
        got = answer.read(BODY_LIMIT_BYTES)
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, got)
    finally:
        line.close()


def refused(reply: Reply, status: int, reason: str = "") -> None:
    """Check that an answer is that problem document (RFC 9457)."""
    assert (reply.status, reply.headers["content-type"]) == (status, PROBLEM), reply
    document = json.loads(reply.body)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["type"]
    assert reason in ("", document["reason"])


def base(served: Served, box: str) -> str:
    """Return where a box listens for everybody."""
    port = json.loads((served.home(box) / "admin.json").read_text())["port"]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(params=PUBLIC)
def box(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(served: Served) -> str:
    return str(served.film["root_cid"])


@pytest.fixture
def poster(served: Served) -> str:
    """Return the path of the one file every box has once it was shown: the poster."""
    return f"/watch/{served.title}/poster.jpg"


@contextmanager
def commands(served: Served) -> Generator[Troupe]:
    troupe = Troupe(served.folder, clean_environment({}))
    try:
        yield troupe
    finally:
        troupe.close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_plain_text(served: Served, box: str, path: str) -> None:
    reply = ask(base(served, box) + path)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert ask(base(served, box) + path, "HEAD").body == b""


def test_trust_files_are_the_origins_own_bytes(served: Served, box: str) -> None:
    for name in ("root.json", "timestamp.json", "1.root.json"):
        reply = ask(f"{base(served, box)}/v1/trust/{name}")
        assert reply.status == 200
        assert json.loads(reply.body)["signatures"]
        assert reply.body == ask(f"{base(served, 'origin')}/v1/trust/{name}").body
    refused(ask(f"{base(served, box)}/v1/trust/passwd"), 404, "unknown_trust_file")


def test_catalog_checkpoint_entries_and_proofs_agree(served: Served, box: str) -> None:
    at = base(served, box)
    note = ask(f"{at}/v1/catalog/checkpoint")
    assert (note.status, note.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    size = int(note.body.split(b"\n")[1])
    entries = ask(f"{at}/v1/catalog/entries?start=0&end={size}")
    assert entries.headers["content-type"] == MSGPACK
    assert len(decode(Page, entries.body).entries) == size == 1
    assert ask(f"{at}/v1/catalog/proof?index=0&size={size}").status == 200
    assert ask(f"{at}/v1/catalog/proof?from={size}&to={size}").status == 200
    refused(ask(f"{at}/v1/catalog/proof?index=7&size=3"), 400)
    refused(ask(f"{at}/v1/catalog/entries?start=-1"), 400)


def test_directory_beacons_and_acks(served: Served, box: str) -> None:
    at = base(served, box)
    relays = ask(f"{at}/v1/relays")
    assert (relays.status, relays.headers["content-type"]) == (200, MSGPACK)
    assert relays.body == ask(f"{base(served, 'origin')}/v1/relays").body
    assert decode(list[bytes], ask(f"{at}/v1/beacons").body)
    refused(ask(f"{at}/v1/acks/{'00' * 16}"), 404)
    refused(ask(f"{at}/v1/acks/nonsense"), 400)


def test_a_block_whole_in_part_unchanged_and_by_head(served: Served, box: str, root: str) -> None:
    if box == "node":  # what is not held is not fetched for others: have it come first
        assert ask(f"{served.gateway}/watch/{served.title}/master.m3u8").status == 200
    url = f"{base(served, box)}/ipfs/{root}?format=raw"
    whole = ask(url)
    assert (whole.status, whole.headers["content-type"]) == (200, RAW)
    assert Cid.parse(root).matches(whole.body)
    assert whole.headers["cache-control"] == "public, max-age=29030400, immutable"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-length"] == str(len(whole.body))
    assert ask(f"{base(served, box)}/ipfs/{root}", Accept=RAW).body == whole.body
    head = ask(url, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole.body)))
    same = ask(url, If_None_Match=whole.headers["etag"])
    assert (same.status, same.body) == (304, b"")
    part = ask(url, Range="bytes=2-9")
    assert (part.status, part.body) == (206, whole.body[2:10])
    assert part.headers["content-range"] == f"bytes 2-9/{len(whole.body)}"
    past = ask(url, Range=f"bytes={len(whole.body)}-")
    assert past.status == 416
    assert past.headers["content-range"] == f"bytes */{len(whole.body)}"


def test_what_nobody_published_is_refused_at_once(served: Served, box: str) -> None:
    unknown = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    at = base(served, box)
    refused(ask(f"{at}/ipfs/{unknown}?format=raw"), 404)
    assert ask(f"{at}/ipfs/{unknown}?format=raw", "HEAD").status == 404
    refused(ask(f"{at}/ipfs/{unknown}?format=raw", Cache_Control="only-if-cached"), 412)
    refused(ask(f"{at}/ipfs/{unknown}"), 400)
    refused(ask(f"{at}/ipfs/not-a-cid?format=raw"), 400)
    refused(ask(f"{at}/watch/no-such-title/master.m3u8"), 404, "unknown_title")
    refused(ask(f"{at}/no/such/path"), 404, "no_route")
    refused(ask(f"{at}/healthz", "DELETE"), 405)


def test_a_file_of_a_title_on_a_public_listener(served: Served, box: str, poster: str) -> None:
    if box == "node":
        assert ask(served.gateway + poster).status == 200
    reply = ask(base(served, box) + poster)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.body == ask(base(served, "origin") + poster).body
    shared = reply.headers.get("access-control-allow-origin")
    assert shared == ("*" if box in ("origin", "relay-1", "relay-2") else None)
    assert ask(base(served, box) + poster, Range="bytes=0-1").body == reply.body[:2] == b"\xff\xd8"
    assert ask(base(served, box) + poster, "HEAD").headers["content-length"] == str(len(reply.body))


def test_a_foreign_host_is_misdirected_on_every_listener(served: Served, box: str) -> None:
    refused(ask(f"{base(served, box)}/healthz", Host="films.example"), 421, "unknown_host")
    local = json.loads((served.home(box) / "admin.json").read_text())["url"]
    refused(ask(f"{local}/", Host="films.example:80"), 421, "unknown_host")


def test_pulses_that_are_none_are_refused(served: Served, box: str) -> None:
    for body in (b"", b"\x93\x01\x90", b"no pulses at all"):
        refused(ask(f"{base(served, box)}/v1/pulses", "POST", body), 400)


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/tickets", "/v1/relays"])
def test_what_is_secret_or_binding_needs_the_origins_own_channel(served: Served, path: str) -> None:
    reply = ask(base(served, "origin") + path, "POST", b"\x90")
    assert reply.status in (400, 401, 403)
    assert reply.headers["content-type"] == PROBLEM


@pytest.mark.parametrize("name", PUBLIC)
def test_the_loopback_listener_wants_its_token_and_no_other_site(served: Served, name: str) -> None:
    local = str(json.loads((served.home(name) / "admin.json").read_text())["url"])
    bare, token = local.rsplit("/", 1)
    page = ask(f"{local}/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert ask(f"{local}/assets/style.css").status == 200
    refused(ask(f"{bare}/"), 404)
    refused(ask(f"{bare}/{token[:-1]}x/"), 404)
    refused(ask(f"{bare}/api/status"), 404)
    refused(ask(f"{local}/", Sec_Fetch_Site="cross-site"), 403, "cross_site")
    assert ask(f"{bare}/metrics").status == ask(f"{bare}/healthz").status == 200


def test_the_gateway_serves_players(served: Served) -> None:
    watch = f"{served.gateway}/watch/{served.title}"
    master = ask(f"{watch}/master.m3u8")
    assert (master.status, master.headers["content-type"]) == (200, PLAYLIST)
    assert "access-control-allow-origin" not in master.headers
    names = [line for line in master.body.decode().splitlines() if line and not line.startswith("#")]
    playlist = ask(f"{watch}/{names[0]}")
    segments = [line for line in playlist.body.decode().splitlines() if line.endswith(".m4s")]
    url = f"{watch}/{names[0].rsplit('/', 1)[0]}/{segments[0]}"
    whole = ask(url)
    assert (whole.status, whole.headers["content-type"]) == (200, SEGMENT)
    assert whole.headers["accept-ranges"] == "bytes"
    last = ask(url, Range="bytes=-5")
    assert (last.status, last.body) == (206, whole.body[-5:])
    assert ask(url, Range=f"bytes={len(whole.body)}-").status == 416
    assert ask(url, If_None_Match=whole.headers["etag"]).status == 304
    assert ask(url, If_Range='"other"', Range="bytes=0-3").body == whole.body
    assert ask(url, "HEAD").headers["content-length"] == str(len(whole.body))
    refused(ask(f"{watch}/no-such-file.m4s"), 404, "unknown_file")
    refused(ask(f"{watch}/../../etc/passwd"), 400)
    bare, _ = served.gateway.rsplit("/", 1)
    refused(ask(f"{bare}/watch/{served.title}/master.m3u8"), 404)
    event = b'e=ps,sid="system-test",sta=a,sn=1,v=2,ts=1,cid="no-such-title"\n'
    assert ask(f"{served.gateway}/v1/cmcd", "POST", event, Content_Type="application/cmcd").status == 204
    refused(ask(f"{served.gateway}/v1/cmcd", "POST", b'"'), 400)


@pytest.mark.parametrize("box", ["origin", "relay-1", "neighbour"])
def test_a_car_holds_the_whole_film_and_every_block_verifies(served: Served, box: str, root: str) -> None:
    _whole_film(served, f"{base(served, box)}/ipfs/{root}?format=car", root)


def test_the_gateway_gives_blocks_and_cars_too(served: Served, root: str) -> None:
    assert ask(f"{served.gateway}/watch/{served.title}/master.m3u8").status == 200
    assert Cid.parse(root).matches(ask(f"{served.gateway}/ipfs/{root}?format=raw").body)
    one = ask(f"{served.gateway}/ipfs/{root}?format=car&dag-scope=block")
    reader = car.Reader()
    assert [cid for cid, _ in reader.push(one.body)] == [Cid.parse(root)]
    reader.finish()
    whole = ask(f"{base(served, 'origin')}/ipfs/{root}/master.m3u8?format=raw").body
    assert ask(f"{served.gateway}/ipfs/{root}/master.m3u8?format=raw").body == whole


def test_the_films_folder_has_one_name_here_and_in_kubo(served: Served, root: str, need: Need) -> None:
    (folder,) = (served.home("origin") / "encodes").glob("[0-9a-f]*")
    with commands(served) as troupe:
        assert troupe.command(["cid", str(folder)])["cid"] == root
    assert _kubo(need("ipfs"), folder, served.folder.with_name("kubo")) == root


def _whole_film(served: Served, url: str, root: str) -> None:
    reply = ask(url)
    assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, CAR)
    reader = car.Reader()
    blocks = dict(reader.push(reply.body))
    reader.finish()
    assert reader.roots == (Cid.parse(root),)
    file = resolve(Cid.parse(root), ["master.m3u8"], blocks.get)
    text = b"".join(content(leaf, blocks[leaf.cid]) for leaf in leaves(file, blocks.get))
    assert text == ask(f"{served.gateway}/watch/{served.title}/master.m3u8").body
    assert sum(map(len, blocks.values())) >= served.film["bytes"]


def _kubo(ipfs: str, folder: Path, repository: Path) -> str:
    """Ask Kubo for a folder's CID in the profile that the film is written in."""
    import os
    import subprocess

    def run(*words: str) -> str:
        environment = {**os.environ, "IPFS_PATH": str(repository)}
        done = subprocess.run(
            [ipfs, *words], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    if not repository.exists():
        run("init", "--profile", "unixfs-v1-2025")
    return run("add", "--recursive", "--only-hash", "--quieter", str(folder)).strip().splitlines()[-1]
