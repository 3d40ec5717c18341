from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.protocol.errors import (
    LocalError,
    RefusedError,
    RemoteError,
    StoreFullError,
    UnreachableError,
)


async def _no_body(_: int) -> bytes:
    return b""


def _ask(target: str, method: str = "GET", host: str = "box", **headers: str) -> Exchange:
    fields = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Exchange.of(method, target, fields, peer="192.0.2.1", secure=False, reader=_no_body)


async def _show(exchange: Exchange) -> Answer:
    return Answer.json({"match": exchange.match, "query": exchange.query, "method": exchange.method})


def _router(token: str = "") -> tuple[Router, list[str]]:
    refused: list[str] = []
    router = Router(Hosts(["box"], addresses=False), token=token, refused=refused.append)
    router.route("GET", "/ipfs/{cid}", _show)
    router.route("GET", "/ipfs/{cid}/{path...}", _show)
    router.route("POST", "/v1/pulses", _show)
    router.route("GET", "/healthz", _show, open=True)
    return router, refused


def _json(answer: Answer) -> dict[str, object]:
    assert isinstance(answer.body, bytes)
    value: dict[str, object] = json.loads(answer.body)
    return value


async def test_a_pattern_matches_one_segment_or_all_the_rest() -> None:
    router, _ = _router()
    assert _json(await router.handle(_ask("/ipfs/bafy")))["match"] == {"cid": "bafy"}
    rest = _json(await router.handle(_ask("/ipfs/bafy/a%20b/c?format=raw&x")))
    assert rest["match"] == {"cid": "bafy", "path": "a b/c"}
    assert rest["query"] == {"format": "raw", "x": ""}
    assert _json(await router.handle(_ask("/ipfs/bafy/")))["match"] == {"cid": "bafy", "path": ""}


@pytest.mark.parametrize("target", ["/", "/ipfs", "/ipfs/", "/ipfs//x", "/other", "/v1/pulses/", "/v1"])
async def test_any_other_path_is_a_404_problem(target: str) -> None:
    router, refused = _router()
    answer = await router.handle(_ask(target))
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert _json(answer) | {"detail": ""} == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "",
        "reason": "no_route",
    }
    assert refused == ["no_route"]


async def test_a_known_path_with_another_method_is_405_and_says_which() -> None:
    router, _ = _router()
    answer = await router.handle(_ask("/ipfs/a", "DELETE"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await router.handle(_ask("/v1/pulses"))).headers["allow"] == "POST"


async def test_head_is_served_by_the_get_handler_which_sees_the_method() -> None:
    router, _ = _router()
    answer = await router.handle(_ask("/ipfs/a", "HEAD"))
    assert (answer.status, _json(answer)["method"]) == (200, "HEAD")


async def test_an_unknown_host_is_421_before_any_handler() -> None:
    router, refused = _router()
    assert (await router.handle(_ask("/ipfs/a", host="evil"))).status == 421
    assert refused == ["unknown_host"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("no", status=412), 412),
        (RemoteError("bad", reason="malformed"), 400),
        (UnreachableError("gone"), 502),
        (StoreFullError("full"), 507),
        (LocalError("broken"), 500),
        (TimeoutError(), 504),
    ],
)
async def test_an_error_becomes_the_problem_of_its_kind(error: Exception, status: int) -> None:
    router, refused = _router()

    async def fail(_: Exchange) -> Answer:
        raise error

    router.route("GET", "/fail", fail)
    answer = await router.handle(_ask("/fail"))
    assert answer.status == status
    assert refused == [getattr(error, "reason", "timeout")]


@pytest.mark.parametrize(
    ("status", "caching"),
    [(404, "public, max-age=5"), (410, "public, max-age=5")]
    + [(status, "no-store") for status in (400, 403, 405, 406, 412, 416, 429, 451, 500, 502, 503)],
)
async def test_no_cache_keeps_an_error_and_absence_for_a_moment_only(status: int, caching: str) -> None:
    router, _ = _router()
    answer = router.fail(RefusedError("a sentence", status=status))
    assert (answer.status, answer.headers["cache-control"]) == (status, caching)


async def test_a_bug_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    router, refused = _router()

    async def fail(_: Exchange) -> Answer:
        raise KeyError("secret")

    router.route("GET", "/fail", fail)
    answer = await router.handle(_ask("/fail"))
    assert answer.status == 500
    assert b"secret" not in answer.body  # type: ignore[operator]
    assert refused == ["bug"]
    assert "a handler failed" in caplog.text


async def test_a_refusal_says_when_to_come_back() -> None:
    router, _ = _router()

    async def fail(_: Exchange) -> Answer:
        raise RefusedError("busy", status=429, retry_after_s=1.2)

    router.route("GET", "/fail", fail)
    assert (await router.handle(_ask("/fail"))).headers["retry-after"] == "2"


async def test_a_token_guards_every_route_but_open_ones() -> None:
    router, _ = _router("s3cret")
    assert (await router.handle(_ask("/ipfs/a"))).status == 404
    assert (await router.handle(_ask("/wrong/ipfs/a"))).status == 404
    assert (await router.handle(_ask("/s3cre/ipfs/a"))).status == 404
    assert _json(await router.handle(_ask("/s3cret/ipfs/a")))["match"] == {"cid": "a"}
    assert (await router.handle(_ask("/healthz"))).status == 200


async def test_a_cross_site_request_never_reaches_a_handler() -> None:
    router, refused = _router("t")
    for target in ("/t/ipfs/a", "/healthz"):
        assert (await router.handle(_ask(target, sec_fetch_site="cross-site"))).status == 403
    assert (await router.handle(_ask("/t/ipfs/a", sec_fetch_site="same-origin"))).status == 200
    assert refused == ["cross_site"] * 2


async def test_only_a_page_of_this_very_origin_or_a_program_may_change_something() -> None:
    router, refused = _router("t")
    post = {"target": "/t/v1/pulses", "method": "POST"}
    for site in ("same-site", "none", "cross-site", "?"):
        assert (await router.handle(_ask(**post, sec_fetch_site=site))).status == 403
    assert refused == ["same_site", "same_site", "cross_site", "same_site"]
    assert (await router.handle(_ask(**post, sec_fetch_site="same-origin"))).status == 200
    assert (await router.handle(_ask(**post))).status == 200
    assert (await router.handle(_ask("/t/ipfs/a", sec_fetch_site="same-site"))).status == 200
    public, _ = _router()
    assert (await public.handle(_ask("/v1/pulses", "POST", sec_fetch_site="cross-site"))).status == 200


async def test_ranges_are_applied_to_what_a_handler_answers() -> None:
    router, _ = _router()

    async def part(_: Exchange) -> Answer:
        return Answer(200, {"etag": '"e"'}, [FilePart("f", 0, 10)])

    router.route("GET", "/part", part)
    assert (await router.handle(_ask("/part", range="bytes=2-3"))).body == [FilePart("f", 2, 2)]
    assert (await router.handle(_ask("/part", if_none_match='"e"'))).status == 304


async def test_a_body_is_read_once_and_remembered() -> None:
    limits: list[int] = []

    async def read(limit: int) -> bytes:
        limits.append(limit)
        return b"body"

    exchange = Exchange.of("POST", "/", {"host": "box"}, peer="", secure=True, reader=read)
    assert [await exchange.read(9), await exchange.read(9)] == [b"body", b"body"]
    assert limits == [9]


def test_the_length_of_an_answer_is_known_unless_it_is_open_ended() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"

    assert Answer(200, {}, b"abc").length == 3
    assert Answer(200, {}, [FilePart("a", 0, 4), FilePart("b", 1, 2)]).length == 6
    assert Answer(200, {}, chunks()).length is None
    assert Answer(200, {"content-length": "3"}, chunks()).length == 3


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("relay.example", True),
        ("relay.example:7433", True),
        ("only:1", True),
        ("only:2", False),
        ("192.0.2.1:7433", True),
        ("[2001:db8::1]:7433", True),
        ("[2001:db8::1]", True),
        ("evil.example", False),
        ("", False),
        ("relay.example:x", False),
    ],
)
def test_hosts_are_names_or_addresses(host: str, allowed: bool) -> None:  # noqa: FBT001
    assert Hosts(["relay.example", "only:1"])(host) is allowed


def test_addresses_are_refused_where_only_names_count() -> None:
    assert not Hosts(["127.0.0.1:1"], addresses=False)("127.0.0.1:2")


async def test_broken_rules_are_told_with_their_peer_and_absent_things_are_not() -> None:
    router, refused = _router()
    told: list[tuple[str, str]] = []
    router.tell = lambda reason, peer: told.append((reason, peer))
    await router.handle(_ask("/other"))
    await router.handle(_ask("/healthz", host="elsewhere"))
    router.turn_away("slow_head", "198.51.100.7")
    assert told == [("unknown_host", "192.0.2.1"), ("slow_head", "198.51.100.7")]
    assert refused == ["no_route", "unknown_host", "slow_head"]
