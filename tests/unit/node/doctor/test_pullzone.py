"""What a cache says of itself, and how pull zones stand by it."""

from __future__ import annotations

import pytest

from farcast.node.doctor.finding import State
from farcast.node.doctor.pullzone import Look, judged, served_from


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"age": "1"}, "hit"),
        ({"age": "0", "x-cache": "MISS"}, "miss"),
        ({"age": "0"}, ""),
        ({"age": "soon"}, ""),
        ({"cache-status": "ExampleCache; hit; ttl=376"}, "hit"),
        ({"cache-status": "ExampleCache; fwd=uri-miss; stored"}, "miss"),
        ({"cf-cache-status": "HIT"}, "hit"),
        ({"cf-cache-status": "DYNAMIC"}, "miss"),
        ({"cdn-cache": "HIT"}, "hit"),
        ({"cdn-cache": "MISS"}, "miss"),
        ({"x-cache": "TCP_MEM_HIT from edge"}, "hit"),
        ({"x-cache": "Hit from cloudfront"}, "hit"),
        ({"x-cache-status": "EXPIRED"}, "miss"),
        ({"x-varnish": "32770 3"}, "hit"),
        ({"x-varnish": "32770"}, "miss"),
        ({"x-cache": "white"}, ""),
        ({}, ""),
    ],
)
def test_age_standard_field_and_makers_words_are_read(headers: dict[str, str], found: str) -> None:
    assert served_from(headers) == found


GOOD, BAD = Look("a.example", "", "yes"), Look("b.example", "it answered 403", "unknown")
IDLE, QUIET = Look("c.example", "", "no"), Look("d.example", "", "unknown")


@pytest.mark.parametrize(
    ("looks", "state", "words"),
    [
        ([GOOD], State.OK, "a.example answers and caches"),
        ([GOOD, QUIET], State.OK, "d.example answers; whether it caches it does not say"),
        ([GOOD, IDLE], State.WARNING, "c.example answers and keeps nothing"),
        ([GOOD, BAD], State.WARNING, "b.example: it answered 403"),
        ([BAD], State.BAD, "b.example: it answered 403"),
    ],
)
def test_the_worst_zone_is_what_is_found(looks: list[Look], state: State, words: str) -> None:
    found = judged(looks)
    assert found.state is state
    assert words in found.sentence
    assert bool(found.mend) is (state is not State.OK)
