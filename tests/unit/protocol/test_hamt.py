"""Positions in sharded folders; whole folders made by Kubo are read in test_unixfs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.hamt import murmur3, prefix_chars, prefixes


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("", 0),
        ("hello", 0xCBD8A7B341BD9B02),
        ("The quick brown fox jumps over the lazy dog", 0xE34BBC7BBC071B6C),
    ],
)
def test_the_hash_is_the_published_one(text: str, hashed: int) -> None:
    assert murmur3(text.encode()) == hashed


@given(st.text(max_size=60), st.sampled_from([8, 16, 32, 256, 1024]))
def test_the_prefixes_are_the_bits_of_the_hash_from_the_front(name: str, fanout: int) -> None:
    bits = fanout.bit_length() - 1
    steps = prefixes(name, fanout)
    assert {len(step) for step in steps} == {prefix_chars(fanout)}
    joined = "".join(f"{int(step, 16):0{bits}b}" for step in steps)
    assert f"{murmur3(name.encode()):064b}".startswith(joined)
    assert 64 - len(joined) < bits


@pytest.mark.parametrize("fanout", [0, 1, 4, 7, 100, 255, 2048, 2**62])
def test_a_fanout_out_of_range_is_refused(fanout: int) -> None:
    with pytest.raises(RemoteError) as caught:
        prefixes("name", fanout)
    assert caught.value.reason == "malformed"
