"""A line of ``[cdn] zones``: what it means, and what it cannot mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.cdn.bunny import Bunny
from farcast.origin.cdn.cloudflare import Cloudflare
from farcast.origin.cdn.zone import Zone, bare, parse_zone
from farcast.protocol.errors import UsageError

CLOUDFLARE_ID = "023e105f4ecef8ad9ca31a8372d0c353"


def test_a_bare_address_is_a_zone_that_nobody_can_tell_anything() -> None:
    zone = parse_zone("https://cdn.example/films/")
    assert zone == Zone("https://cdn.example/films")
    assert not zone.purges
    assert (zone.name, zone.path) == ("cdn.example", "/films/")


def test_each_kind_has_its_words() -> None:
    bunny = parse_zone("https://films.b-cdn.net kind=bunny zone=12 key=/k token=$T token_s=14400")
    assert bunny == Zone(
        "https://films.b-cdn.net", "bunny", "12", "/k", "$T", 14_400, "https://api.bunny.net"
    )
    cloudflare = parse_zone(f"https://cdn.example kind=cloudflare zone={CLOUDFLARE_ID} key=$K")
    assert cloudflare.api == "https://api.cloudflare.com/client/v4"
    assert parse_zone("http://cdn.example api=http://10.0.0.5:6081").purges
    assert bunny.purges
    assert cloudflare.purges


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("https://c.example kind=akamai", "none of generic, bunny, cloudflare"),
        ("https://c.example zone=1", "a generic zone takes no zone"),
        ("https://c.example kind=bunny zone=films key=/k", "is not a number"),
        ("https://c.example kind=bunny zone=1", "takes key="),
        ("https://c.example kind=cloudflare key=/k", "both zone= and key="),
        ("https://c.example kind=cloudflare zone=abc key=/k", "32 hex digits"),
        ("https://c.example kind", "no word=value"),
        ("https://c.example kind=bunny kind=bunny", "twice"),
        ("https://c.example kind=bunny token=/t token_s=60", "not from 14400"),
        ("https://c.example key=/k api=http://10.0.0.5", "in the clear"),
        ("https://c.example api=ftp://10.0.0.5", "no http or https URL"),
    ],
)
def test_what_a_line_cannot_mean_is_one_sentence_that_names_the_zone(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_zone(line)
    assert words in str(caught.value)
    assert "https://c.example" in str(caught.value)


PATHS = st.lists(st.from_regex("[a-z0-9-]{1,12}", fullmatch=True), max_size=3)


KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@given(PATHS, KEYS, st.integers(0, 10**10 - 1))
def test_a_base_is_found_again_whatever_token_it_carries(names: list[str], key: str, issued_s: int) -> None:
    base = "/".join(["https://cdn.example:8443", *names])
    bunny = Zone(base, "bunny", token="/t", api="https://api.example")
    assert bare(Bunny(bunny).signed(key, issued_s)) == base
    cloudflare = Zone(base, "cloudflare", token="/t", api="https://api.example")
    assert bare(Cloudflare(cloudflare).signed(key, issued_s)) == base
