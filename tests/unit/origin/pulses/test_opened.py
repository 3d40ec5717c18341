"""Pulses of a post read together, against each read by itself."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.pulses.opened import ENVELOPE_LIMIT_BYTES, Opened, open_pulses
from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Signed
from farcast.protocol.pulse import pulse_hash, read_pulse
from farcast.tests.unit.origin.mint import Viewer

FILM = b"f" * 32
GOOD = [pulse for number in (1, 2) for pulse in Viewer(number).watch(FILM, 3)]
HARM: list[Callable[[bytes], bytes]] = [
    lambda data: data[:-1],
    lambda data: data + b"\0",
    lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    lambda data: b"\xdc\x00\x02" + data[1:],  # the same array with a longer header
    lambda _: encode(Signed(b"\x90", bytes(64))),
    lambda data: encode(Signed(data[4:-66], bytes(ENVELOPE_LIMIT_BYTES))),
    lambda _: b"",
]


def by_itself(data: bytes, stamp_ms: int) -> tuple[object, bytes]:
    try:
        pulse, signed = read_pulse(data)
    except RemoteError as error:
        return error.reason, b""
    return Opened(pulse, pulse_hash(signed.body), signed.sig, stamp_ms, b"carrier"), signed.body


@given(st.lists(st.tuples(st.sampled_from(GOOD), st.none() | st.sampled_from(HARM)), max_size=12))
@settings(deadline=None)
def test_what_is_read_together_is_what_is_read_one_by_one(
    items: list[tuple[bytes, Callable[[bytes], bytes] | None]],
) -> None:
    post = [data if harm is None else harm(data) for data, harm in items]
    found = open_pulses(post, range(len(post)), b"carrier")
    expected = [by_itself(data, stamp_ms) for stamp_ms, data in enumerate(post)]
    assert list(zip(found.items, found.bodies, strict=True)) == expected


def test_what_is_neighbour_to_a_bad_one_is_read_all_the_same() -> None:
    items = open_pulses([GOOD[0], b"", GOOD[1]], [1, 2, 3], b"").items
    assert [isinstance(item, Opened) for item in items] == [True, False, True]


def test_the_body_is_the_one_that_was_signed() -> None:
    post = open_pulses(GOOD, range(len(GOOD)), b"")
    assert [item.body for item in post.items if isinstance(item, Opened)] == list(post.bodies)
