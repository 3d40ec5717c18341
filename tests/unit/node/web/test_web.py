"""The web player's pages, and what a Service Worker is told of a title."""

from __future__ import annotations

import gzip
import json
import re
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.steering.pathway import Site
from farcast.node.steering.routes import Map
from farcast.node.web import ASSETS, Titles, WebPlayer, scripts
from farcast.node.web.scripts import SCRIPTS, written
from farcast.node.web.site import web_names
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.errors import RefusedError
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Window
from farcast.tests.unit.node.web.asloaded import require_minified

BUDGET_BYTES = 3_000
NOW_MS = 1_800_000_000_000
CID = Cid.of(RAW, b"manifest")
KEY = [b"k" * 32]
HOME = Endpoint("films.example", 7433, web=False)
KEYRING = Keyring(
    1, "Films <of> the coast", b"o" * 32, KEY, KEY, KEY, KEY, KEY, [HOME], ["https://cdn.example/films"]
)
RECORD = RelayRecord(1, b"r" * 32, [Endpoint("relay.example", 7433, web=False)], "", NOW_MS, NOW_MS + 1)
FILM = Manifest(
    1, "film", 1, b"k" * 32, "Film & <sons>", "What happens", "en", 3_725_000, CID.encode(), 1, [], [],
    Window(0, 0), [], [Payee("ada", 10_000)], "open", None, NOW_MS, b"",
)  # fmt: skip


def _entry(title: str) -> Entry:
    if title != "film":
        raise RefusedError("no such title", status=404, reason="unknown_title")
    return Entry(1, "publish", "film", CID.encode(), NOW_MS)


def player(film: Manifest = FILM, *, accounts: bool = True) -> Router:
    def held(title: str) -> Manifest:
        if title != "film":
            raise RefusedError("not here yet", status=503, reason="no_manifest")
        return film

    async def learn(title: str) -> Manifest:
        return held(title)

    router = Router(Hosts(["films.example", "box"], addresses=False))
    site, names = Site(b"o" * 32, is_origin=True), frozenset({"films.example"})
    where = Map(site, lambda: KEYRING, lambda: [RECORD], lambda: names, lambda: NOW_MS)
    titles = Titles(lambda: ["film", "unknown"], _entry, held, learn)
    WebPlayer(titles, where, lambda: 0, lambda: KEYRING.name, accounts=accounts).add_to(
        router, lambda one: one
    )
    return router


async def get(router: Router, target: str, host: str = "films.example", **headers: str) -> Answer:
    async def no_body(_: int) -> bytes:
        return b""

    return await router.handle(
        Exchange.of("GET", target, {"host": host, **headers}, peer="192.0.2.1", secure=False, reader=no_body)
    )


def text(answer: Answer) -> str:
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


@pytest.mark.parametrize("target", ["/web/", "/web/film"])
async def test_pages_allow_no_stranger_and_hold_no_script(target: str) -> None:
    answer = await get(player(), target)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "Films &lt;of&gt; the coast" in text(answer)
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|<style|\sstyle=", text(answer))
    places = set(re.findall(r'(?:src|href|poster)="([^"]*)"', text(answer)))
    assert all(place.startswith(("/web/", "/watch/")) for place in places), places


async def test_only_the_ways_of_the_title_may_be_connected_to() -> None:
    policy = (await get(player(), "/web/film")).headers["content-security-policy"]
    assert "connect-src 'self' https://cdn.example;" in policy, "over https no plain address"
    policy = (await get(player(), "/web/film", host="box")).headers["content-security-policy"]
    assert "connect-src 'self' https://cdn.example http://relay.example:7433;" in policy
    assert "media-src 'self' blob: data: https://cdn.example" in policy, "hls.js has a track of data:,WEBVTT"


async def test_a_worker_is_told_the_manifest_the_keys_and_whom_to_ask() -> None:
    answer = await get(player(), "/web/film/film.json", host="box")
    found: dict[str, Any] = json.loads(text(answer))
    assert found == {
        "manifest": CID.digest.hex(),
        "publishers": [(b"k" * 32).hex()],
        "sources": [
            {"tier": 1, "relay": "", "url": "https://cdn.example/films"},
            {"tier": 2, "relay": (b"r" * 16).hex(), "url": "http://relay.example:7433"},
            {"tier": 1, "relay": "", "url": ""},
        ],
    }
    assert answer.headers["cache-control"] == "no-store"
    assert (await get(player(), "/web/other/film.json")).status == 404


async def test_an_invitation_is_asked_for_at_the_origin_alone() -> None:
    assert 'id="join"' in text(await get(player(), "/web/"))
    relay = player(accounts=False)
    assert 'id="join"' not in text(await get(relay, "/web/"))


async def test_a_title_whose_manifest_is_not_here_is_listed_by_its_id() -> None:
    page = text(await get(player(), "/web/"))
    assert "Film &amp; &lt;sons&gt;" in page
    assert "1:02:05" in page
    assert 'href="/web/unknown"' in page


async def test_every_asset_is_there_or_says_that_it_is_not() -> None:
    router = player()
    for name, (_, _, media_type) in ASSETS.items():
        answer = await get(router, f"/web/{name}")
        assert answer.status == 200 or name == "hls.min.js" or name.endswith(".map")
        if answer.status == 200:
            assert answer.headers["content-type"] == media_type
    assert (await get(router, "/web/nothing.js")).status != 200
    assert (await get(router, "/web")).headers["location"] == "/web/"


async def test_a_browser_that_has_an_asset_is_not_sent_it_again() -> None:
    router = player()
    first = await get(router, "/web/player.js")
    again = await get(router, "/web/player.js", **{"if-none-match": first.headers["etag"]})
    assert again.status == 304
    packed = await get(router, "/web/player.js", **{"accept-encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["etag"] != first.headers["etag"]
    assert isinstance(packed.body, bytes)
    assert gzip.decompress(packed.body).decode() == text(first)


async def test_scripts_are_sent_within_their_budgets() -> None:
    """What checks, and what steers, in 3 KB each with the pulse snippet; an account is a further file."""
    require_minified()

    async def weight(name: str) -> int:
        answer = await get(player(), f"/web/{name}", **{"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert isinstance(answer.body, bytes)
        return len(answer.body)

    assert await weight("sw.js") < BUDGET_BYTES, "with the pulse snippet"
    pulses = len(gzip.compress(written("pulse.js"), 9))
    assert await weight("player.js") + pulses < BUDGET_BYTES, "even beside the snippet as it is written"
    assert await weight("account.js") < 1_100


async def test_a_minified_script_names_its_source_map_and_needs_nothing_else_at_once() -> None:
    require_minified()
    for name in SCRIPTS:
        answer = await get(player(), f"/web/{name}")
        assert "importScripts" not in text(answer).replace('location.search&&importScripts("account.js")', "")
        found = await get(player(), f"/web/{answer.headers['sourcemap']}")
        known = dict(zip(*map(json.loads(text(found)).get, ("sources", "sourcesContent")), strict=True))
        assert set(known) == ({"sw.js", "pulse.js"} if name == "sw.js" else {name})
        assert known[name].splitlines()[-1] == _source(name).splitlines()[-1]


async def test_scripts_that_were_changed_since_are_sent_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "minified", lambda: False)
    assert scripts.script("sw.js") == written("sw.js")
    assert b"async function pulse(" in written("sw.js"), "with what it imports at once"
    assert b'importScripts("account.js");' in written("sw.js")


def _source(name: str) -> str:
    return files(scripts.PACKAGE).joinpath(name).read_text()


async def test_a_relay_sends_who_wants_a_sealed_title_to_the_publishers_site() -> None:
    sealed = msgspec.structs.replace(FILM, access="ticket")
    assert "people with an account" in text(await get(player(sealed, accounts=False), "/web/film"))
    assert "people with an account" not in text(await get(player(sealed), "/web/film"))
    assert "people with an account" not in text(await get(player(accounts=False), "/web/film"))


async def test_over_https_the_worker_connects_to_https_alone() -> None:
    policy = (await get(player(), "/web/sw.js")).headers["content-security-policy"]
    assert policy.endswith("connect-src 'self' https:")
    policy = (await get(player(), "/web/sw.js", host="box")).headers["content-security-policy"]
    assert policy.endswith("connect-src 'self' https: http:")


def test_the_names_of_web_endpoints_are_what_browsers_send_as_host() -> None:
    assert web_names(["https://Films.example", "films.example:7433", "https://b.example:443"]) == {
        "films.example",
        "b.example",
    }
    assert web_names(["https://c.example:8443"]) == {"c.example:8443", "c.example"}
    assert web_names(["https://[2001:db8::1]:8443"]) == {"[2001:db8::1]:8443", "[2001:db8::1]"}
