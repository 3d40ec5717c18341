"""Deny files: the example of the specification, rule by rule, and whatever else stands in a file."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import DAG_PB, IDENTITY, RAW, Cid
from farcast.protocol.denylist import Denylist
from farcast.protocol.errors import RemoteError

EXAMPLE = """\
version: 1
name: Example list
author: somebody@example.com
hints:
  hint: value
---
# a comment
/ipfs/bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq

/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/test*
/ipfs/QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC/test/*
/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked*
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blockednot
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/not
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/exceptions*
/ipns/domain.example
/ipns/domain2.example/path
/ipns/k51qzi5uqu5dhmzyv3zac033i7rl9hkgczxyl81lwoukda2htteop7d3x0y1mf
//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM
//gW813G35CnLsy7gRYYHuf63hrz71U1xoLFDVeV7actx6oX
//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7
//3f8b9febd851873b3774b937cce126910699ceac56e72e64b866f8e258d09572
"""
"""The rules of the specification's own example (compact denylist format, section "Example")."""

ONE = Cid.parse("bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq")
PREFIX = Cid.parse("Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2")
FOLDER = Cid.parse("QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC")
EXCEPTED = Cid.parse("QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK")
HASHED = Cid.parse("QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR")
LEGACY = Cid.parse("bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e")


@pytest.mark.parametrize(
    ("cid", "path", "denied"),
    [
        (ONE, "", True),
        (Cid(RAW, ONE.digest), "", True),  # by multihash, whatever the codec
        (ONE, "below", False),
        (PREFIX, "", False),
        (PREFIX, "test", True),
        (PREFIX, "test1/deep", True),
        (PREFIX, "other", False),
        (FOLDER, "test", True),
        (FOLDER, "test/deep", True),
        (FOLDER, "tes", False),
        (EXCEPTED, "blocked", True),
        (EXCEPTED, "blockedyes", True),
        (EXCEPTED, "blockednot", False),
        (EXCEPTED, "blocked/not", False),
        (EXCEPTED, "blocked/nothing", True),
        (EXCEPTED, "blocked/exceptions/all", False),
        (HASHED, "", True),
        (Cid(RAW, HASHED.digest), "", True),
        (HASHED, "path", False),
        (LEGACY, "", True),
        (Cid(RAW, LEGACY.digest), "", False),  # the legacy form names the CID's very text
        (LEGACY, "path", True),
        (LEGACY, "path2", False),
        (Cid.of(RAW, b"anything else"), "", False),
    ],
)
def test_the_specifications_example(cid: Cid, path: str, denied: bool) -> None:  # noqa: FBT001 - a table's column
    made = Denylist(EXAMPLE)
    assert made.denies(cid, path) is denied
    assert made.unknown == [20], "only the rule hashed by BLAKE3 is left out"
    assert made.rules == 13


def test_a_star_alone_is_the_block_and_all_below_it() -> None:
    made = Denylist(f"/ipfs/{ONE}/*\n")
    assert made.denies(ONE)
    assert made.denies(ONE, "any/path")


def test_percent_encoded_paths_and_hints_are_read() -> None:
    made = Denylist(f"/ipfs/{ONE}/a%20b/ reason=law  since=2020\r\n")
    assert made.denies(ONE, "a b")
    assert not made.unknown


def test_the_last_rule_that_matches_decides_for_hashed_rules_too() -> None:
    digest = sha256(f"{ONE}/".encode()).hexdigest()
    assert not Denylist(f"//{digest}\n!/ipfs/{ONE}\n").denies(ONE)
    assert Denylist(f"!/ipfs/{ONE}\n//{digest}\n").denies(ONE)


def test_a_bare_multihash_names_the_block() -> None:
    made = Denylist("/ipfs/QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR\n")
    assert made.denies(Cid(DAG_PB, HASHED.digest))
    assert not made.denies(Cid(RAW, b"", IDENTITY))


def test_another_version_is_refused_and_a_list_without_a_header_is_read() -> None:
    with pytest.raises(RemoteError, match="version 2"):
        Denylist(f"version: 2\n---\n/ipfs/{ONE}\n")
    assert Denylist(f"/ipfs/{ONE}").denies(ONE)
    assert Denylist(f"name: x\nversion: '1' # ours\n---\n/ipfs/{ONE}").denies(ONE)


def test_lines_that_are_no_rules_are_numbered() -> None:
    made = Denylist(f"name: x\n---\nnonsense\n/ipld/{ONE}\n/ipfs/\n//\n/ipfs/notacid\n/ipfs/{ONE}\n!\n")
    assert made.unknown == [3, 4, 5, 6, 7, 9]
    assert made.denies(ONE)


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused_and_never_denies_what_it_does_not_name(text: str) -> None:
    with suppress(RemoteError):
        assert not Denylist(text).denies(Cid.of(RAW, b"never named"), "a/b")


PATHS = st.text("ab/", min_size=0, max_size=4).map(
    lambda text: "/".join(part for part in text.split("/") if part)
)


@given(st.lists(st.tuples(st.booleans(), PATHS, st.booleans()), max_size=8), PATHS)
def test_clear_rules_agree_with_reading_them_one_by_one(
    rules: list[tuple[bool, str, bool]], path: str
) -> None:
    lines = [
        ("!" if allows else "") + f"/ipfs/{ONE}/{below}{'*' if star else ''}" for allows, below, star in rules
    ]
    verdict = False
    for allows, below, star in rules:
        if path.startswith(below) if star else path == below:
            verdict = not allows
    assert Denylist("\n".join(lines)).denies(ONE, path) is verdict
