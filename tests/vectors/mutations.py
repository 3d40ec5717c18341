"""Bytes and values near a vector, for property tests of every reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.identity import Identity, Kind, Signed

SIGNERS: dict[str, str] = {
    "manifest": "publisher",
    "ticket": "ticket",
    "pulse": "session",
    "batch": "relay",
    "receipt": "relay",
    "ack": "intake",
    "seal": "intake",
    "evidence": "intake",
    "beacon": "catalog",
    "presence": "lan",
    "record": "relay",
    "directory": "catalog",
    "generation": "catalog",
    "request": "device",
    "settle": "settlement",
}
"""Whose seed signs the vectors of a kind."""

EDGES = (
    0, 1, 127, 128, 255, 256, 2_000, 2_001, 65_535, 65_536, 121_000, 121_001, 2**32 - 1, 2**32, 2**53 - 1,
    2**53, 2**63 - 1, 2**63, 2**64 - 1, -1,
)  # fmt: skip
ODD = st.one_of(
    st.sampled_from(EDGES),
    st.sampled_from((0, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 128, 129)).map(bytes),
    st.sampled_from((0, 1, 40, 41, 63, 64, 253, 254, 400, 401)).map("a".__mul__),
    st.sampled_from(("A", "a\n", "de", "DE", "DE\n", "2026-09", "open", "ticket", "video", "\u00e9")),
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(max_size=40),
    st.lists(st.integers(0, 9), max_size=4),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)


@st.composite
def near(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw bytes near ``data``: some changed, left out, put in, or cut off."""
    edit = st.tuples(st.integers(0, len(data)), st.sampled_from("=-+^x"), st.binary(min_size=1, max_size=4))
    for place, how, more in draw(st.lists(edit, min_size=1, max_size=4)):
        if how == "x":
            data = data[:place]
        elif how == "-":
            data = data[:place] + data[place + len(more) :]
        elif how == "^" and place < len(data):
            data = data[:place] + bytes((data[place] ^ 1 << more[0] % 8,)) + data[place + 1 :]
        else:
            data = data[:place] + more + data[place + (len(more) if how == "=" else 0) :]
    return data


@st.composite
def reshaped(draw: st.DrawFn, packed: bytes) -> bytes:
    """Draw a msgpack value that is ``packed`` with one part, however deep, odd, doubled or left out."""
    return encode(_changed(draw, msgspec.msgpack.decode(packed)))


@st.composite
def resigned(draw: st.DrawFn, kind: Kind, data: bytes, seeds: dict[str, str]) -> bytes:
    """Draw an envelope near ``data`` whose body is reshaped, or near, and rightly signed."""
    body = cast("bytes", msgspec.msgpack.decode(data)[0])
    body = draw(near(body) if draw(st.integers(0, 3)) == 0 else reshaped(body))
    signer = Identity(bytes.fromhex(seeds[SIGNERS[kind]]))
    return encode(Signed(body, signer.sign(kind, body)))


def _changed(draw: Callable[[st.SearchStrategy[Any]], Any], value: object) -> object:
    if not isinstance(value, list) or not value or draw(st.integers(0, 6)) == 0:
        return draw(ODD)
    items = list(cast("list[object]", value))
    place = draw(st.integers(0, len(items) - 1))
    how = draw(st.integers(0, 9))
    if how == 0:
        del items[place]
    elif how == 1:
        items.insert(place, items[place])
    else:
        items[place] = _changed(draw, items[place])
    return items
