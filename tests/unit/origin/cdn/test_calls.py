"""The exact requests of a purge, as each CDN documents them, and how their answers are read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.cdn.adapter import Adapter, Call, Generic
from farcast.origin.cdn.bunny import Bunny
from farcast.origin.cdn.cloudflare import Cloudflare
from farcast.origin.cdn.zone import Zone, parse_zone

ID = "023e105f4ecef8ad9ca31a8372d0c353"
BLOCK, FILES = "/ipfs/bafkrei?format=raw", ("/watch/film/master.m3u8", "/watch/film/v0/seg-1.m4s")
JSON = (("content-type", "application/json"),)


def test_bunny_is_told_the_tag_then_each_url_and_the_titles_folder_once() -> None:
    bunny = Bunny(parse_zone("https://films.b-cdn.net kind=bunny zone=12 key=/k"))
    assert bunny.calls([BLOCK, *FILES], "farcast-film") == [
        Call("POST", "https://api.bunny.net/pullzone/12/purgeCache", b'{"CacheTag":"farcast-film"}', JSON),
        Call(
            "POST",
            "https://api.bunny.net/purge?url=https%3A%2F%2Ffilms.b-cdn.net%2Fipfs%2Fbafkrei%3Fformat%3Draw",
            covers=(BLOCK,),
        ),
        Call(
            "POST",
            "https://api.bunny.net/purge?url=https%3A%2F%2Ffilms.b-cdn.net%2Fwatch%2Ffilm%2F",
            covers=FILES,
        ),
    ]
    assert bunny.credentials("secret") == {"accesskey": "secret"}


def test_bunny_without_a_number_has_no_tags() -> None:
    bunny = Bunny(parse_zone("https://films.b-cdn.net kind=bunny key=/k"))
    assert [call.covers for call in bunny.calls([BLOCK], "farcast-film")] == [(BLOCK,)]


def test_cloudflare_is_told_the_tag_then_a_hundred_urls_at_a_time() -> None:
    cloudflare = Cloudflare(parse_zone(f"https://cdn.example/x kind=cloudflare zone={ID} key=$K"))
    paths = [f"/ipfs/b{number}?format=raw" for number in range(250)]
    tag, *files = cloudflare.calls(paths, "farcast-film")
    url = f"https://api.cloudflare.com/client/v4/zones/{ID}/purge_cache"
    assert tag == Call("POST", url, b'{"tags":["farcast-film"]}', JSON)
    assert [len(call.covers) for call in files] == [100, 100, 50]
    assert {(call.method, call.url, call.headers) for call in files} == {("POST", url, JSON)}
    told = [one for call in files for one in json.loads(call.body)["files"]]
    assert told == [f"https://cdn.example/x{path}" for path in paths]
    assert cloudflare.credentials("secret") == {"authorization": "Bearer secret"}


def test_any_other_cache_is_sent_purge_for_the_host_that_viewers_ask() -> None:
    generic = Generic(parse_zone("https://cdn.example/x api=http://127.0.0.1:6081"))
    assert generic.calls([BLOCK], "farcast-film") == [
        Call("PURGE", f"http://127.0.0.1:6081/x{BLOCK}", headers=(("host", "cdn.example"),), covers=(BLOCK,))
    ]


LINES = (
    "https://cdn.example api=http://127.0.0.1:6081",
    "https://films.b-cdn.net kind=bunny zone=12 key=/k",
    f"https://cdn.example kind=cloudflare zone={ID} key=$K",
)
KINDS: dict[str, Callable[[Zone], Adapter]] = {"generic": Generic, "bunny": Bunny, "cloudflare": Cloudflare}


@given(
    st.sampled_from(LINES),
    st.lists(st.from_regex("/(ipfs/b[a-z2-7]{8}|watch/[a-z]{3}/s[0-9]{1,3})", fullmatch=True), unique=True),
)
def test_every_path_is_in_exactly_one_call(line: str, paths: list[str]) -> None:
    zone = parse_zone(line)
    calls = KINDS[zone.kind](zone).calls(paths, "farcast-film")
    assert sorted(path for call in calls for path in call.covers) == sorted(paths)


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (200, b'{"success":true,"errors":[],"messages":[],"result":{"id":"1"}}', ""),
        (200, b'{"success":false,"errors":[{"code":1012,"message":"Request must contain"}]}', "1012"),
        (200, b"<html>", "it answered 200"),
        (
            401,
            b'{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}',
            "it answered 401: Authentication error (10000)",
        ),
        (429, b"", "it answered 429"),
    ],
)
def test_cloudflare_is_believed_where_it_says_success(status: int, body: bytes, trouble: str) -> None:
    found = Cloudflare(parse_zone(LINES[2])).trouble(status, body)
    assert trouble in found
    assert bool(trouble) is bool(found)


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (200, b"", ""),
        (204, b"", ""),
        (
            401,
            b'{"Message":"Authorization has been denied for this request."}',
            "it answered 401: Authorization has been denied for this request.",
        ),
        (404, b'{"Message":"a\\u0007b"}', "it answered 404"),
        (500, b"[" * 9, "it answered 500"),
    ],
)
def test_bunnys_word_for_trouble_is_told_if_it_can_be_printed(status: int, body: bytes, trouble: str) -> None:
    assert Bunny(parse_zone(LINES[1])).trouble(status, body) == trouble


@pytest.mark.parametrize(
    ("status", "trouble"),
    [(200, ""), (404, ""), (412, ""), (405, "it does not take PURGE"), (403, "it answered 403")],
)
def test_what_was_never_cached_is_purged_as_well(status: int, trouble: str) -> None:
    assert Generic(parse_zone(LINES[0])).trouble(status, b"") == trouble
