"""Tokens, against the vectors that the CDNs' own tools give, and against what their edges check."""

from __future__ import annotations

import base64
import hmac
import re
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.cdn.bunny import Bunny, token
from farcast.origin.cdn.cloudflare import Cloudflare, timed_mac
from farcast.origin.cdn.zone import Zone

KEY, EXPIRES_S = "SecurityKey", 1_598_024_587
"""Of the vectors in bunny.net's repository of token libraries (BunnyCDN.TokenAuthentication, e2e)."""


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        ("/300kb.jpg", {}, "HS256-o10JRWlsAItyAsdKS6jJKjabHN4FrFsplDHPV1idcX4"),
        ("/abc", {"token_path": "/abc"}, "HS256-uVZvT3SbEoVKYJyDJgbcsDmSFf73cv-uNUVaJiKWpbQ"),
        ("/300kb.jpg", {"token_ignore_params": "true"}, "HS256-1lwWBD_c1IAGSj1UKPoxreu8ePDQ-Z9FoWLcRn_RRH0"),
        ("/300kb.jpg", {"token_countries": "CA,US"}, "HS256-i5s3Uv7mnrFfN5nznwU2BxhILpnipYeE18TapV0WNFM"),
        ("/300kb.jpg", {"limit": "1000"}, "HS256-DAVapqNNED3Z7JkjRTYX0UOIHNtbHEuuhRNEc4A7mMQ"),
        ("/300kb.jpg", {"v": "123"}, "HS256-q6oRQr-5ccQ-piO1HSEQu1DVMy9UMppRxGlIQwoeM5Y"),
    ],
)
def test_bunnys_own_vectors(path: str, parameters: dict[str, str], expected: str) -> None:
    assert token(KEY, path, EXPIRES_S, parameters) == expected


def test_a_mac_for_cloudflare_is_what_openssl_makes_of_it() -> None:
    # printf '/download/cat.jpg1484063787' | openssl dgst -sha256 -hmac mysecretkey -binary | base64
    made = timed_mac("mysecretkey", "/download/cat.jpg", 1_484_063_787)
    assert made == "1484063787-JcOQEFurDwNF66OcDJLopQxjsg3cB1KVO5-BFS9zZZ0"


TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=64)


@given(TEXTS, st.integers(10**9, 10**10 - 1), st.sampled_from(["", "/films", "/a/b"]))
def test_cloudflares_rule_takes_what_is_signed_and_nothing_older(key: str, issued_s: int, path: str) -> None:
    zone = Zone(f"https://cdn.example{path}", "cloudflare", token="/t")
    url = urlsplit(Cloudflare(zone).signed(key, issued_s))
    verify = dict(parse_qsl(url.query))["verify"]
    message_mac = f"{url.path}/" + verify  # concat("/films/", http.request.uri.args["verify"][0])
    assert is_timed_hmac_valid(key, message_mac, zone.token_s, issued_s + zone.token_s - 1)
    assert not is_timed_hmac_valid(key, message_mac, zone.token_s, issued_s + zone.token_s)
    assert not is_timed_hmac_valid(key + "x", message_mac, zone.token_s, issued_s)
    assert not is_timed_hmac_valid(key, "/other/" + verify, zone.token_s, issued_s)


def is_timed_hmac_valid(key: str, message_mac: str, ttl_s: int, now_s: int) -> bool:
    """Check as the Rules language reference says, separator of no length, flag ``'s'``."""
    match = re.fullmatch(r"(.+)(.*)(\d{10})-(.{43,})", message_mac, re.DOTALL)
    if match is None:
        return False
    message, _, stamp, mac = match.groups()
    made = hmac.digest(key.encode(), (message + stamp).encode(), "sha256")
    wanted = base64.urlsafe_b64encode(made).decode().rstrip("=")
    return hmac.compare_digest(mac, wanted) and now_s < int(stamp) + ttl_s


@given(TEXTS, st.integers(0, 10**10), st.sampled_from(["", "/films"]))
def test_bunnys_edge_finds_in_the_path_all_that_was_signed(key: str, issued_s: int, path: str) -> None:
    zone = Zone(f"https://films.b-cdn.net{path}", "bunny", token="/t")
    url = urlsplit(Bunny(zone).signed(key, issued_s) + "/ipfs/bafk?format=raw")
    first, _, rest = url.path[1:].partition("/")
    fields = dict(pair.split("=", 1) for pair in first.split("&"))
    signed = {name: unquote(text) for name, text in fields.items() if name not in ("bcdn_token", "expires")}
    assert signed["token_ignore_params"] == "true"  # so that ?format=raw breaks nothing
    assert f"/{rest}".startswith(signed["token_path"])
    message = signed["token_path"] + fields["expires"]
    message += "&".join(f"{name}={text}" for name, text in sorted(signed.items()))
    made = hmac.digest(key.encode(), message.encode(), "sha256")
    assert fields["bcdn_token"] == "HS256-" + base64.urlsafe_b64encode(made).decode().rstrip("=")
    assert int(fields["expires"]) == issued_s + zone.token_s
