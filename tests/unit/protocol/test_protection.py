from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.protection import (
    is_playlist,
    is_sealed,
    iv_of,
    key_path,
    lock_playlist,
    open_file,
    seal_file,
    unlock_playlist,
)

KEY, KEY_ID = bytes(range(16)), b"\xab" * 16
POSTERS = frozenset({"poster.jpg"})
PATH = st.text("abc/._-0123456789", min_size=1, max_size=40)
PLAYLIST = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MAP:URI="init.mp4"
#EXTINF:2.000000,
seg-00000.m4s
#EXTINF:1.500000,
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z
part-1/seg-04000.m4s
#EXT-X-ENDLIST
"""


@given(st.binary(max_size=2_000), st.binary(min_size=16, max_size=16), PATH)
def test_a_sealed_file_opens_again_and_only_gets_its_padding_longer(
    clear: bytes, key: bytes, path: str
) -> None:
    sealed = seal_file(key, KEY_ID, path, clear)
    assert 1 <= len(sealed) - len(clear) <= 16
    assert len(sealed) % 16 == 0
    assert open_file(key, KEY_ID, path, sealed) == clear


@given(st.binary(max_size=500), PATH)
def test_it_is_what_another_implementation_of_cbc_and_pkcs7_opens(clear: bytes, path: str) -> None:
    decryptor = Cipher(AES(KEY), CBC(iv_of(KEY_ID, path))).decryptor()
    padded = decryptor.update(seal_file(KEY, KEY_ID, path, clear)) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    assert unpadder.update(padded) + unpadder.finalize() == clear


@given(PATH, PATH, st.binary(min_size=16, max_size=16))
def test_no_two_files_of_a_title_and_no_two_titles_share_an_iv(one: str, other: str, key_id: bytes) -> None:
    assert (iv_of(KEY_ID, one) == iv_of(KEY_ID, other)) == (one == other)
    assert (iv_of(KEY_ID, one) == iv_of(key_id, one)) == (key_id == KEY_ID)


@pytest.mark.parametrize("sealed", [b"", b"x" * 15, b"x" * 17, seal_file(KEY, KEY_ID, "a", b"clear")[:-16]])
def test_what_no_sealing_made_is_refused(sealed: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        open_file(KEY, KEY_ID, "a", sealed)
    assert caught.value.reason == "bad_ciphertext"


def test_another_key_shows_in_the_padding() -> None:
    sealed = seal_file(KEY, KEY_ID, "a", b"clear" * 100)
    refused = 0
    for other in range(64):
        try:
            assert open_file(bytes([other]) * 16, KEY_ID, "a", sealed) != b"clear" * 100
        except RemoteError:
            refused += 1
    assert refused > 55  # one in 256 has a last byte that looks like padding


@pytest.mark.parametrize(
    ("path", "sealed"),
    [
        ("master.m3u8", False),
        ("v720/index.m3u8", False),
        ("manifest.mpd", False),
        ("v720/init.mp4", False),
        ("poster.jpg", False),
        ("v720/seg-00000.m4s", True),
        ("v720/part-1/seg-04000.m4s", True),
        ("subs-en.vtt", True),
        ("storyboard/000.jpg", True),
        ("storyboard.vtt", True),
        ("other/poster.jpg", True),
        ("anything.else", True),
    ],
)
def test_everything_is_sealed_but_playlists_init_segments_and_posters(path: str, sealed: bool) -> None:  # noqa: FBT001
    assert is_sealed(path, POSTERS) == sealed
    assert not (is_playlist(path) and sealed)


def test_each_segment_gets_the_key_and_its_own_iv_and_the_init_segment_none() -> None:
    locked = lock_playlist(PLAYLIST, "v720/index.m3u8", KEY_ID).splitlines()
    tags = [at for at, line in enumerate(locked) if line.startswith("#EXT-X-KEY:")]
    assert min(tags) > next(at for at, line in enumerate(locked) if line.startswith("#EXT-X-MAP"))
    assert [locked[at] for at in tags] == [
        f'#EXT-X-KEY:METHOD=AES-128,URI="/v1/keys/{"ab" * 16}",IV=0x{iv_of(KEY_ID, path).hex()}'
        for path in ("v720/seg-00000.m4s", "v720/part-1/seg-04000.m4s")
    ]
    assert locked[tags[1] + 1].startswith("#EXTINF:1.5")
    assert key_path(KEY_ID) == f"/v1/keys/{'ab' * 16}"
    assert unlock_playlist("\n".join(locked) + "\n") == PLAYLIST


@given(st.lists(st.sampled_from(["seg-1.m4s", "a/b.m4s", "x.vtt"]), max_size=20), st.booleans())
def test_locking_and_unlocking_give_the_playlist_back(names: list[str], init: bool) -> None:  # noqa: FBT001
    lines = ["#EXTM3U", *(['#EXT-X-MAP:URI="init.mp4"'] if init else [])]
    for name in names:
        lines += ["#EXTINF:2.0,", name]
    text = "\n".join([*lines, "#EXT-X-ENDLIST", ""])
    locked = lock_playlist(text, "v0/index.m3u8", KEY_ID)
    assert unlock_playlist(locked) == text
    assert locked.count("#EXT-X-KEY:") == len(names)


def test_a_multivariant_playlist_stays_as_it_is() -> None:
    text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/index.m3u8\n"
    assert lock_playlist(text, "master.m3u8", KEY_ID) == text


@pytest.mark.parametrize(
    "line",
    [
        "#EXT-X-BYTERANGE:100@0",
        "#EXT-X-I-FRAMES-ONLY",
        '#EXT-X-KEY:METHOD=AES-128,URI="k"',
        '#EXT-X-MAP:URI="other.mp4"',
    ],
)
def test_tags_that_do_not_go_with_whole_segments_are_refused(line: str) -> None:
    text = PLAYLIST.replace("#EXTINF:1.5", f"{line}\n#EXTINF:1.5")
    with pytest.raises(RemoteError) as caught:
        lock_playlist(text, "v0/index.m3u8", KEY_ID)
    assert caught.value.reason == "bad_playlist"
