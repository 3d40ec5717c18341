import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.rotation import Rotation, open_rotation, seal_rotation

OLD, NEW, THIEF = Identity(b"o" * 32), Identity(b"n" * 32), Identity(b"t" * 32)


def test_both_keys_agree() -> None:
    found = open_rotation(seal_rotation(OLD.key, OLD, NEW, 7))
    assert (found.relay, found.old, found.new, found.at_ms) == (OLD.key, OLD.key, NEW.key, 7)


def test_neither_key_can_rotate_alone() -> None:
    good = open_rotation(seal_rotation(OLD.key, OLD, NEW, 7))
    stolen = Rotation(1, OLD.key, OLD.key, THIEF.key, 7, good.consent)
    with pytest.raises(RemoteError, match="does not agree"):
        open_rotation(THIEF.seal("rotation", stolen))
    with pytest.raises(RemoteError, match="not signed by"):
        open_rotation(OLD.seal("rotation", good))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_rotation_or_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_rotation(data)


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    whole = bytearray(seal_rotation(OLD.key, OLD, NEW, 7))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteError):
        open_rotation(bytes(whole))
