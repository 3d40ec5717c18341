"""Checkpoints as signed notes: the specification's example, round trips, and what is refused."""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import LocalError, RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.note import COMPACT_BYTES, Checkpoint, compact, expand, key_id, open_note, seal

NAME = "films.example/catalog"
LOG = Identity(bytes(range(32)))
OTHER = Identity(bytes(32))
HEAD = Checkpoint(NAME, 20_000, sha256(b"root").digest(), 1_790_000_000_000)
NOTE = seal(HEAD, NAME, LOG)

numbers = st.integers(0, 2**63 - 1)
heads = st.builds(Checkpoint, st.just(NAME), numbers, st.binary(min_size=32, max_size=32), numbers)


def signed(text: str, name: str = NAME, identity: Identity = LOG) -> bytes:
    """Sign any text as a note."""
    sig = key_id(name, identity.key) + identity.sign_raw(text.encode())
    return f"{text}\n— {name} {b64encode(sig).decode()}\n".encode()


def test_the_note_is_the_text_the_specification_asks_for() -> None:
    lines = NOTE.decode().split("\n")
    root = b64encode(HEAD.root).decode()
    assert lines[:5] == [NAME, "20000", root, "time 1790000000000", ""]
    dash, name, sig = lines[5].split(" ")
    assert (dash, name, lines[6:]) == ("\u2014", NAME, [""])
    assert b64decode(sig)[:4] == sha256(NAME.encode() + b"\n\x01" + LOG.key).digest()[:4]
    assert len(b64decode(sig)) == 68


def test_the_key_id_is_the_one_in_a_verifier_key_of_another_implementation() -> None:
    # The public verifier key of the Go checksum database: name, key id, type and key.
    name, published = "sum.golang.org", "033de0ae"
    key = b64decode("Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    assert key[0] == 1
    assert key_id(name, key[1:]).hex() == published


@given(heads)
def test_a_checkpoint_comes_back_from_its_note_and_from_its_radio_form(head: Checkpoint) -> None:
    note = seal(head, NAME, LOG)
    assert open_note(note, NAME, LOG.key) == head
    small = compact(note, NAME, LOG.key)
    assert len(small) == COMPACT_BYTES <= 120
    assert expand(small, NAME) == note


def test_signatures_of_others_are_ignored() -> None:
    text, line = NOTE.split(b"\n\n")
    witness = signed(text.decode() + "\n", "witness.example", OTHER).split(b"\n\n")[1]
    for lines in (line + witness, witness + line, witness * 15 + line):
        note = text + b"\n\n" + lines
        assert open_note(note, NAME, LOG.key) == HEAD
        assert expand(compact(note, NAME, LOG.key), NAME) == NOTE


def test_a_note_signed_by_nobody_known_is_refused() -> None:
    for name, key in ((NAME, OTHER.key), ("other.example", LOG.key)):
        with pytest.raises(RemoteError) as caught:
            open_note(NOTE, name, key)
        assert caught.value.reason == "bad_signature"


def test_one_false_signature_of_the_log_spoils_the_note() -> None:
    forged = b64encode(key_id(NAME, LOG.key) + bytes(64))
    note = NOTE + "— ".encode() + NAME.encode() + b" " + forged + b"\n"
    with pytest.raises(RemoteError) as caught:
        open_note(note, NAME, LOG.key)
    assert caught.value.reason == "bad_signature"


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, mask: int) -> None:
    changed = bytearray(NOTE)
    changed[place] ^= mask
    with pytest.raises(RemoteError):
        open_note(bytes(changed), NAME, LOG.key)


@given(st.integers(1, COMPACT_BYTES - 1), st.integers(1, 255))
def test_any_changed_byte_of_the_radio_form_is_noticed(place: int, mask: int) -> None:
    changed = bytearray(compact(NOTE, NAME, LOG.key))
    changed[place] ^= mask
    with pytest.raises(RemoteError):
        open_note(expand(bytes(changed), NAME), NAME, LOG.key)


@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode() + b"\n\n" + NOTE[-120:])
)
def test_any_bytes_are_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_note(data, NAME, LOG.key)


@pytest.mark.parametrize("letters", ["\u0080AAAA", "A", "AAAA=AAAA", "*" * 96])
def test_a_signature_that_is_no_base64_is_a_remote_error(letters: str) -> None:
    with pytest.raises(RemoteError, match="signature"):
        open_note(NOTE + f"\u2014 witness.example {letters}\n".encode(), NAME, LOG.key)


@given(st.binary(max_size=150) | st.binary(min_size=COMPACT_BYTES, max_size=COMPACT_BYTES))
def test_any_bytes_expand_to_a_false_note_or_are_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_note(expand(data, NAME), NAME, LOG.key)


ROOT = b64encode(HEAD.root).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}\n1\n{ROOT}\n",  # no time
        f"{NAME}\n01\n{ROOT}\ntime 1\n",
        f"{NAME}\n1\n{ROOT}\ntime 01\n",
        f"{NAME}\n1\n{ROOT}\ntime 1\nmore\n",
        f"{NAME}\n-1\n{ROOT}\ntime 1\n",
        f"{NAME}\n{2**63}\n{ROOT}\ntime 1\n",
        f"{NAME}\n1\n{ROOT}\ntime {10**20}\n",
        f"{NAME}\n1\n{ROOT[:-2]}H=\ntime 1\n",  # stray bits in the root
        f"{NAME}\n1\n{ROOT[:-4]}\ntime 1\n",
        f"{NAME}\n\u0661\n{ROOT}\ntime 1\n",  # a digit of another script
        "a poem\n\nin two parts\n",
    ],
)
def test_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        open_note(signed(text), NAME, LOG.key)
    assert caught.value.reason == "malformed"


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        open_note(signed(f"other.example\n1\n{ROOT}\ntime 1\n"), NAME, LOG.key)
    assert caught.value.reason == "wrong_origin"


@pytest.mark.parametrize(
    "note",
    [
        b"",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"- no dash\n",
        NOTE.replace(b"\n", b"\r\n"),
        NOTE + NOTE.split(b"\n\n")[1] * 16,
        NOTE + "— a AAAA\n".encode(),
        NOTE + "— a AAAAA\n".encode(),
        NOTE + "— a+b AAAAAAAA\n".encode(),
        b"x" * (97 << 10),
        b"\xff" + NOTE,
    ],
)
def test_bytes_that_are_no_note_are_refused(note: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        open_note(note, NAME, LOG.key)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "name", ["", "two words", "a+b", "line\nline", "x" * 201, "a\ud800", "other.example"]
)
def test_a_name_no_note_can_carry_is_our_own_error(name: str) -> None:
    origin = NAME if name == "other.example" else name
    with pytest.raises(LocalError) as caught:
        seal(HEAD._replace(origin=origin), name, LOG)
    assert caught.value.reason == "bad_name"
