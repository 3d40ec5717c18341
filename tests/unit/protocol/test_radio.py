"""A datagram from the air proves itself, or is refused in one way; it is as small as was promised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.note import Checkpoint, compact, open_note, seal
from farcast.protocol.radio import (
    DATAGRAM_LIMIT_BYTES,
    HEAD_BYTES,
    WAYBILL_LIMIT_BYTES,
    Head,
    Waybill,
    head_datagram,
    open_datagram,
    waybill_datagram,
)
from farcast.tests.unit.origin.mint import Viewer, batch

CATALOG, RELAY = Identity(b"c" * 32), Identity(b"r" * 32)
NAME = f"farcast/{CATALOG.peer_id}/catalog"
POINT = Checkpoint(NAME, 20_000, b"r" * 32, 1_795_791_600_000)
NOTE = seal(POINT, NAME, CATALOG)
HEAD = head_datagram(compact(NOTE, NAME, CATALOG.key))
ANN = Viewer(1)
BATCH = batch(RELAY, [ANN], ANN.watch(b"m" * 32, 20)[:20], [1_000] * 20, 3)
WAYBILL = waybill_datagram(BATCH, RELAY)


def opened(data: bytes) -> Head | Waybill:
    """Open a datagram as a follower of this catalog."""
    return open_datagram(data, NAME, [RELAY.key, CATALOG.key])


def test_a_head_is_118_bytes_and_gives_the_note_back() -> None:
    assert len(HEAD) == HEAD_BYTES == 118
    assert opened(HEAD) == Head(POINT, NOTE)
    assert open_note(NOTE, NAME, CATALOG.key) == POINT
    with pytest.raises(RemoteError) as caught:
        open_datagram(HEAD, NAME, [RELAY.key])
    assert caught.value.reason == "bad_signature"


def test_a_waybill_names_a_batch_and_fits() -> None:
    found = opened(WAYBILL)
    assert isinstance(found, Waybill)
    assert (found.carrier, found.number, found.pulses) == (RELAY.key, 3, 20)
    assert len(WAYBILL) <= WAYBILL_LIMIT_BYTES
    with pytest.raises(RemoteError) as caught:
        opened(b"\x02" + Identity(b"x" * 32).seal("waybill", found))
    assert caught.value.reason == "bad_signature"


@given(st.sampled_from([HEAD, WAYBILL]), st.integers(0, 10_000), st.integers(1, 255))
def test_one_byte_changed_is_refused(datagram: bytes, at: int, flip: int) -> None:
    data = bytearray(datagram)
    data[at % len(data)] ^= flip
    with pytest.raises(RemoteError):
        opened(bytes(data))


@given(st.binary(max_size=DATAGRAM_LIMIT_BYTES + 10), st.sampled_from([b"", b"\x01", b"\x02"]))
def test_any_bytes_are_refused(data: bytes, kind: bytes) -> None:
    with pytest.raises(RemoteError):
        opened(kind + data)
