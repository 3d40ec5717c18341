"""Positions in sharded folders; whole folders made by Kubo are read in test_unixfs."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol import hamt
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.dagpb import Link
from farcast.protocol.errors import LocalError, RemoteError
from farcast.protocol.hamt import murmur3, prefix_chars, prefixes
from farcast.protocol.unixfs import listing, parse, resolve


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


def entries(count: int) -> list[Link]:
    return [Link(f"name {number}", Cid.of(RAW, b"%d" % number), number) for number in range(count)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.sampled_from([8, 16, 256, 1024]), st.randoms(use_true_random=False))
def test_shards_do_not_depend_on_the_order_of_names(count: int, fanout: int, random: Random) -> None:
    links = entries(count)
    shards = hamt.write(links, fanout)
    shuffled = [*links]
    random.shuffle(shuffled)
    assert hamt.write(shuffled, fanout) == shards
    blocks = {cid: block for cid, block, _ in shards}
    root, block, size = shards[-1]
    assert listing(root, blocks.get) == sorted(links, key=lambda link: link.name.encode())
    for link in links[:: max(1, count // 9)]:
        assert resolve(root, [link.name], blocks.get) == link.cid
    assert size == sum(map(len, blocks.values())) + sum(link.tsize for link in links)
    assert parse(root, block).fanout == fanout


def test_the_bit_field_says_which_positions_are_taken() -> None:
    shards = hamt.write(entries(300))
    for cid, block, _ in shards:
        node = parse(cid, block)
        taken = sum(1 << int(link.name[:2], 16) for link in node.links)
        assert node.data == taken.to_bytes(32, "big").lstrip(b"\0")


def test_names_of_one_hash_cannot_be_parted() -> None:
    link = entries(1)[0]
    with pytest.raises(LocalError, match="have one hash") as caught:
        hamt.write([link, link])
    assert caught.value.reason == "bad_name"
