"""Blocks of the trustless gateway, and what holds for every answer: negotiation, caching, refusals."""

from __future__ import annotations

from functools import cache

import pytest

from farcast.tests.interop.trustless import CAR, RAW, Fixture, Relay, decoder

open_fixture = cache(Fixture)
IMMUTABLE = "public, max-age=29030400, immutable"
ABSENT = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
TEXT = b"hello application/vnd.ipld.raw\n"


@pytest.fixture
def plain() -> Fixture:
    """Return a folder ``dir`` with the file ``ascii.txt``."""
    return open_fixture("gateway-raw-block")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", [(), ("dir",), ("dir", "ascii.txt")])
@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize("way", ["format", "accept", "both"])
def test_a_block_is_sent_as_it_is(
    relay: Relay,
    plain: Fixture,
    path: tuple[str, ...],
    by_path: bool,  # noqa: FBT001
    way: str,
    method: str,
) -> None:
    cid = plain.at(*path)
    target = "/".join(("/ipfs", plain.root, *path)) if by_path else f"/ipfs/{cid}"
    fields = {} if way == "format" else {"Accept": RAW}
    reply = relay.ask(target + ("" if way == "accept" else "?format=raw"), method, **fields)
    assert (reply.status, reply.body) == (200, plain.data[cid] if method == "GET" else b"")
    expected = {
        "content-type": RAW,
        "content-length": str(len(plain.data[cid])),
        "content-disposition": f'attachment; filename="{cid}.bin"',
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
        "cache-control": IMMUTABLE,
        "etag": f'"{cid}.raw"',
        "x-ipfs-path": target,
        "x-ipfs-roots": ",".join(
            [plain.at(*path[:count]) for count in range(len(path) + 1)] if by_path else [cid]
        ),
    }
    assert {name: reply.headers.get(name) for name in expected} == expected
    assert reply.headers.get("content-location") == (f"{target}?format=raw" if way == "accept" else None)
    assert reply.head_bytes < 1_500


@pytest.mark.parametrize(
    ("query", "accept", "status", "kind"),
    [
        ("format=car", RAW, 200, CAR),  # the parameter beats Accept
        ("format=raw", CAR, 200, RAW),
        ("format=raw", "text/html", 200, RAW),
        ("", f"{RAW};q=0.5, {CAR}", 200, CAR),
        ("", f"{RAW}, {CAR};q=0.5", 200, RAW),
        ("", f"{CAR};q=0.5, {RAW};q=0.9", 200, RAW),
        ("", f"{RAW}, {CAR}", 200, RAW),
        ("", f"{CAR};q=0, {RAW}", 200, RAW),
        ("", f"text/html, {CAR};q=0.1, */*", 200, CAR),
        ("", f"{CAR};order=none, {CAR};order=dfs;dups=y;q=0.5", 200, CAR),
        ("", f"{CAR};version=2, {RAW};q=0.1", 200, RAW),
        ("", RAW.upper(), 200, RAW),
        ("", "", 400, None),  # strict: no form at all
        ("", "*/*", 400, None),
        ("", "text/html", 406, None),
        ("", f"{CAR};version=2", 406, None),
        ("", f"{RAW};q=0", 406, None),
        ("format=tar", RAW, 400, None),
        ("format=", RAW, 400, None),
        ("format=ipns-record", "", 400, None),
    ],
)
def test_the_form_is_negotiated(
    relay: Relay, plain: Fixture, query: str, accept: str, status: int, kind: str | None
) -> None:
    fields = {"Accept": accept} if accept else {}
    reply = relay.ask(f"/ipfs/{plain.at('dir')}{'?' * bool(query)}{query}", **fields)
    assert reply.status == status
    if kind is not None:
        assert reply.headers["content-type"].split(";")[0] == kind
        if query in ("", "format=car"):
            assert f"?format={'car' if kind == CAR else 'raw'}" in reply.headers["content-location"]


@pytest.mark.parametrize(
    ("fixture", "form", "status", "kind"),
    [
        ("dag-cbor-traversal", "dag-cbor", 200, "application/vnd.ipld.dag-cbor"),
        ("dag-json-traversal", "dag-json", 200, "application/vnd.ipld.dag-json"),
        ("plain-cbor", "cbor", 200, "application/cbor"),
        ("plain-json", "json", 200, "application/json"),
        ("dag-cbor-traversal", "dag-json", 406, ""),  # never converted (IPIP-0524)
        ("dag-json-traversal", "dag-cbor", 406, ""),
        ("dag-pb", "dag-json", 406, ""),
        ("dag-pb", "dag-cbor", 406, ""),
        ("plain-json", "dag-json", 406, ""),
        ("plain-cbor", "dag-cbor", 406, ""),
        ("gateway-raw-block", "json", 406, ""),
        ("dag-cbor-traversal", "raw", 200, RAW),
        ("plain-cbor", "raw", 200, RAW),
    ],
)
@pytest.mark.parametrize("way", ["format", "accept"])
def test_a_codec_is_served_as_itself_or_not_at_all(
    relay: Relay, fixture: str, form: str, status: int, kind: str, way: str
) -> None:
    one = open_fixture(fixture)
    types = {"raw": RAW, "json": "application/json", "cbor": "application/cbor"}
    fields = {"Accept": types.get(form, f"application/vnd.ipld.{form}")} if way == "accept" else {}
    reply = relay.ask(f"/ipfs/{one.root}" + ("" if fields else f"?format={form}"), **fields)
    assert reply.status == status
    if status == 200:
        assert (reply.headers["content-type"], reply.body) == (kind, one.data[one.root])
        assert reply.headers["etag"] == f'"{one.root}.{form}"'


@pytest.mark.parametrize(
    ("range_", "status", "first", "last"),
    [
        ("bytes=6-16", 206, 6, 16),
        ("bytes=0-0", 206, 0, 0),
        ("bytes=-5", 206, 26, 30),
        ("bytes=20-", 206, 20, 30),
        ("bytes=20-999", 206, 20, 30),
        ("bytes=31-", 416, 0, 0),
        ("bytes=900-901", 416, 0, 0),
        ("bytes=0-3,6-9", 200, 0, 30),  # several: the whole is a right answer
        ("bytes=9-3", 200, 0, 30),
        ("lines=1-2", 200, 0, 30),
    ],
)
@pytest.mark.parametrize("way", ["format", "accept", "path"])
def test_a_range_of_a_raw_block(
    relay: Relay, plain: Fixture, range_: str, status: int, first: int, last: int, way: str
) -> None:
    cid = plain.at("dir", "ascii.txt")
    target, fields = {
        "format": (f"/ipfs/{cid}?format=raw", {}),
        "accept": (f"/ipfs/{cid}", {"Accept": RAW}),
        "path": (f"/ipfs/{plain.root}/dir/ascii.txt?format=raw", {}),
    }[way]
    reply = relay.ask(target, Range=range_, **fields)
    assert reply.status == status
    assert reply.headers["cache-control"] == ("no-store" if status == 416 else IMMUTABLE)
    if status == 416:
        assert reply.headers["content-range"] == "bytes */31"
        return
    assert reply.body == TEXT[first : last + 1]
    assert reply.headers["content-type"] == RAW
    assert reply.headers.get("content-range") == (f"bytes {first}-{last}/31" if status == 206 else None)


@pytest.mark.parametrize(
    "field",
    ["{}", "W/{}", '"other", "another", {}', 'W/"other", W/{}', "*", ' "x",{} '],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["raw", "car"])
@pytest.mark.parametrize("path", ["", "/dir"])
def test_what_the_client_has_is_not_sent_again(
    relay: Relay, plain: Fixture, field: str, method: str, form: str, path: str
) -> None:
    target = f"/ipfs/{plain.root}{path}?format={form}"
    tag = relay.ask(target).headers["etag"]
    reply = relay.ask(target, method, If_None_Match=field.format(tag))
    assert (reply.status, reply.body) == (304, b"")
    assert (reply.headers["etag"], reply.headers["cache-control"]) == (tag, IMMUTABLE)
    assert relay.ask(target, method, If_None_Match='"another"').status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["raw", "car"])
def test_only_if_cached(relay: Relay, plain: Fixture, form: str, method: str) -> None:
    def ask(target: str) -> int:
        return relay.ask(
            f"/ipfs/{target}?format={form}", method, Cache_Control="max-age=9, Only-If-Cached"
        ).status

    assert ask(plain.root) == 200
    assert ask(f"{plain.root}/dir/ascii.txt") == 200
    assert ask(ABSENT) == 412
    assert ask(f"{ABSENT}/a/b") == 412
    assert relay.ask(f"/ipfs/{ABSENT}?format={form}", method).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("fields", [{}, {"Accept": RAW}])
def test_the_probe(relay: Relay, method: str, fields: dict[str, str]) -> None:
    reply = relay.ask("/ipfs/bafkqaaa" + ("" if fields else "?format=raw"), method, **fields)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"", RAW)
    assert reply.headers["cache-control"] == IMMUTABLE


def test_an_identity_block_is_in_its_name(relay: Relay) -> None:
    cid = "bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa"
    text = b"hello I am an inlined cid"[: len(relay.ask(f"/ipfs/{cid}?format=raw").body)]
    assert relay.ask(f"/ipfs/{cid}?format=raw").body == decoder.cid_parts(decoder.cid_bytes(cid))[2]
    assert relay.ask(f"/ipfs/{cid}?format=raw", Range="bytes=0-4").body == b"hello" == text[:5]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("foobar.bin", 'attachment; filename="foobar.bin"'),
        (
            "test%D1%82%D0%B5%D1%81%D1%82.jpg",
            "attachment; filename=\"test____.jpg\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.jpg",
        ),
        (
            "a%22%0D%0ASet-Cookie:%20x",
            "attachment; filename=\"a___Set-Cookie: x\"; filename*=UTF-8''a%22%0D%0ASet-Cookie%3A%20x",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["raw", "car"])
def test_a_file_name_may_be_asked_for(relay: Relay, plain: Fixture, name: str, field: str, form: str) -> None:
    for path in ("", "/dir/ascii.txt"):
        reply = relay.ask(f"/ipfs/{plain.root}{path}?format={form}&filename={name}")
        assert reply.headers["content-disposition"] == field
        assert "set-cookie" not in reply.headers


def test_heads_stay_small_whatever_is_asked(relay: Relay, plain: Fixture) -> None:
    long = "%F0%9F%8E%AC" * 120
    for form in ("raw", "car"):
        reply = relay.ask(f"/ipfs/{plain.root}/dir/ascii.txt?format={form}&filename={long}{'x' * 500}")
        assert reply.status == 200
        assert reply.head_bytes < 1_500
    reply = relay.ask(f"/ipfs/{plain.root}{'//' * 800}?format=car&dag-scope=block", Accept=RAW)
    assert (reply.status, reply.head_bytes < 1_500) == (200, True)


def test_the_same_bytes_under_another_codec_are_the_same_block(relay: Relay, plain: Fixture) -> None:
    digest = decoder.cid_parts(decoder.cid_bytes(plain.root))[2]
    as_raw = decoder.cid_text(b"\x01\x55\x12\x20" + digest)
    assert relay.ask(f"/ipfs/{as_raw}?format=raw").body == plain.data[plain.root]
    assert relay.ask(f"/ipfs/{as_raw}?format=car").blocks == [as_raw]


@pytest.mark.parametrize(
    "text", ["f01551220" + "00" * 31, "bafy", "Qm" + "1" * 44, "z6Mk", "b" * 301, "bafkqac"]
)
def test_what_is_no_cid_is_refused(relay: Relay, text: str) -> None:
    for form in ("raw", "car"):
        assert relay.ask(f"/ipfs/{text}?format={form}").status == 400


def test_other_spellings_of_a_cid_name_the_same_block(relay: Relay) -> None:
    twins = open_fixture("fixtures-19")
    cid = twins.at("hello-CIDv0")
    binary = decoder.cid_bytes(cid)
    assert relay.ask(f"/ipfs/f{binary.hex()}?format=raw").body == twins.data[cid]
    assert relay.ask(f"/ipfs/{twins.root}/hello-CIDv1_TOO_LONG?format=raw").body == b"hello\n"


def test_a_path_that_ends_inside_a_document_is_no_block(relay: Relay) -> None:
    root = open_fixture("dag-cbor-traversal").root
    assert relay.ask(f"/ipfs/{root}/foo/object?format=raw").status == 404
    assert relay.ask(f"/ipfs/{root}/foo/link?format=raw").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_gateway_only_reads(relay: Relay, plain: Fixture, method: str) -> None:
    assert relay.ask(f"/ipfs/{plain.root}?format=raw", method).status == 405


def test_every_site_may_read(relay: Relay, plain: Fixture) -> None:
    for form in ("raw", "car"):
        reply = relay.ask(f"/ipfs/{plain.root}?format={form}", Origin="https://films.example")
        assert reply.headers["access-control-allow-origin"] == "*"
