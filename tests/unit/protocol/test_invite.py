from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError, UsageError
from farcast.protocol.invite import Invite, format_invite, parse_invite

ROOT = "ab" * 32
LINK = f"farcast://films.example:7433/join?root={ROOT}&token=0123456789abcdef&kind=relay"


def test_a_link_reads_back_as_the_invite_it_was_made_from() -> None:
    for invite in (
        Invite("films.example", 7433, ROOT, "0123456789abcdef", "relay"),
        Invite("203.0.113.7", 1, ROOT, "", "viewer"),
        Invite("2001:db8::1", 65_535, ROOT, "a-_" * 6, "viewer"),
    ):
        assert parse_invite(format_invite(invite)) == invite


def test_a_link_pasted_with_space_around_it_is_read() -> None:
    assert parse_invite(f"\n  {LINK} ") == Invite("films.example", 7433, ROOT, "0123456789abcdef", "relay")


def test_an_ipv6_address_is_dialled_in_brackets() -> None:
    assert Invite("2001:db8::1", 7433, ROOT, "", "viewer").address == "[2001:db8::1]:7433"


class Bad(NamedTuple):
    """A link and what its refusal must name."""

    link: str
    names: str


@pytest.mark.parametrize(
    "bad",
    [
        Bad("https://films.example/", "farcast://"),
        Bad(LINK + "x" * 2_000, "1,024"),
        Bad(LINK.replace(":7433", ""), "HOST:PORT"),
        Bad(LINK.replace(":7433", ":0"), "HOST:PORT"),
        Bad(LINK.replace(":7433", ":99999"), "address"),
        Bad(LINK.replace("films.example", "fil ms"), "a space"),
        Bad(LINK.replace("/join", "/jion"), "/join"),
        Bad(LINK.replace("films", "me@films"), "/join"),
        Bad(LINK.replace(ROOT, "ab" * 31), "root="),
        Bad(LINK.replace("0123456789abcdef", "short"), "token="),
        Bad(LINK.replace("relay", "king"), "kind="),
        Bad(LINK + "&kind=viewer", "twice"),
        Bad(LINK + "&more=1", "does not know"),
    ],
    ids=lambda bad: bad.link[:60],
)
def test_a_wrong_link_is_refused_with_the_part_that_is_wrong(bad: Bad) -> None:
    with pytest.raises(RemoteError, match=bad.names) as caught:
        parse_invite(bad.link)
    assert caught.value.reason == "bad_invite"


def test_an_invite_that_no_link_can_carry_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="no invite can be made"):
        format_invite(Invite("bad host", 7433, ROOT, "", "viewer"))


@given(
    st.one_of(st.text(), st.text().map(lambda tail: "farcast://" + tail), st.text().map(lambda t: LINK + t))
)
def test_any_text_gives_an_invite_or_a_remote_error(text: str) -> None:
    with contextlib.suppress(RemoteError):
        assert isinstance(parse_invite(text), Invite)
