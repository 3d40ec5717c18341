from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.payout.iban import masked, parse_bic, parse_iban
from farcast.protocol.errors import UsageError

DE, GB, MT = "DE89370400440532013000", "GB29NWBK60161331926819", "MT84MALT011000012345MTLCAST001S"
"""Examples of the IBAN registry."""


@pytest.mark.parametrize("iban", [DE, GB, MT, "NO9386011117947", "FR1420041010050500013M02606"])
def test_examples_of_the_registry_pass(iban: str) -> None:
    assert parse_iban(iban) == iban
    assert parse_iban(f" {iban[:4]} {iban[4:].lower()} ") == iban


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "two letters"),
        ("DE89", "two letters"),
        ("DE8937040044053201300é", "two letters"),
        ("DE8937040044053201300", "has 22 characters, this one has 21"),
        ("DE89370400440532013001", "check digits"),
        ("DE99370400440532013000", "check digits"),
        ("DE٨٩370400440532013000", "two letters"),
    ],
)
def test_what_is_no_iban_is_refused_without_being_repeated(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_iban(text)
    assert not text or text not in str(caught.value)


@given(st.integers(0, len(DE) - 1), st.sampled_from("0123456789"))
def test_one_wrong_digit_is_always_found(at: int, digit: str) -> None:
    slip = DE[:at] + digit + DE[at + 1 :]
    if slip == DE:
        return
    with pytest.raises(UsageError):
        parse_iban(slip)


@given(st.integers(4, len(DE) - 2))
def test_two_neighbours_swapped_are_always_found(at: int) -> None:
    swapped = DE[:at] + DE[at + 1] + DE[at] + DE[at + 2 :]
    if swapped != DE:
        with pytest.raises(UsageError):
            parse_iban(swapped)


def test_a_bic_has_eight_or_eleven_characters() -> None:
    assert parse_bic(" deutdeff500 ") == "DEUTDEFF500"
    for text in ("DEUT", "DEUT1EFF", "DEUTDEFF5", "DEUTDEFF50é"):
        with pytest.raises(UsageError, match="8 or 11"):
            parse_bic(text)


def test_lists_show_how_a_number_begins_and_ends() -> None:
    assert masked(DE) == "DE89...3000"
    assert masked("acct1234") == "..."
    assert masked("") == ""
