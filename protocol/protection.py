"""Protected titles: which files of a folder are ciphertext, and how they are sealed and opened.

Whole files, AES-128-CBC with PKCS #7 padding and an explicit IV: the method ``AES-128`` of HLS
(RFC 8216 sections 4.3.2.4 and 5.2), so that a player which has the key needs nothing else of ours.
Pure: keys are arguments.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from .errors import RemoteError
from .manifest import Manifest

KEY_BYTES = 16
BLOCK_BYTES = 16
PLAYLISTS = (".m3u8", ".mpd")
INIT = "init.mp4"
KEYS_PATH = "/v1/keys"
"""Where an origin answers for keys; the URI of a playlist's keys is ``/v1/keys/{key id in hex}``."""

_KEY_TAG = "#EXT-X-KEY:"
_SESSION_KEY_TAG = "#EXT-X-SESSION-KEY:"
_UNFIT_TAGS = (_KEY_TAG, _SESSION_KEY_TAG, "#EXT-X-BYTERANGE", "#EXT-X-I-FRAMES-ONLY")


def is_playlist(path: str) -> bool:
    """Say whether a file of a folder is a playlist, of HLS or DASH."""
    return path.endswith(PLAYLISTS)


def is_sealed(path: str, posters: Collection[str]) -> bool:
    """Say whether a protected title has the file at ``path`` as ciphertext.

    Everything is but playlists, init segments (codec settings, no picture and no sound) and the
    posters, which are there for people who have no ticket yet.
    """
    return not is_playlist(path) and posixpath.basename(path) != INIT and path not in posters


def posters(manifest: Manifest) -> frozenset[str]:
    """Return the paths of a title's posters."""
    return frozenset(track.path for track in manifest.tracks if track.kind == "poster")


def iv_of(key_id: bytes, path: str) -> bytes:
    """Return the IV of one file: 16 bytes that no other file under this key has."""
    return sha256(b"farcast/iv/v1\0" + key_id + path.encode()).digest()[:BLOCK_BYTES]


def seal_file(key: bytes, key_id: bytes, path: str, clear: bytes) -> bytes:
    """Encrypt a whole file; the result is 1 to 16 bytes longer."""
    pad = BLOCK_BYTES - len(clear) % BLOCK_BYTES
    encryptor = Cipher(AES(key), CBC(iv_of(key_id, path))).encryptor()
    return encryptor.update(clear) + encryptor.update(bytes([pad]) * pad) + encryptor.finalize()


def open_file(key: bytes, key_id: bytes, path: str, sealed: bytes) -> bytes:
    """Decrypt a whole file.

    Raises:
        RemoteError: ``bad_ciphertext`` where length or padding show that this key did not seal it.

    """
    if not sealed or len(sealed) % BLOCK_BYTES:
        message = f"{path} of {len(sealed)} bytes is no encrypted file: its length is no multiple of 16"
        raise RemoteError(message, reason="bad_ciphertext")
    decryptor = Cipher(AES(key), CBC(iv_of(key_id, path))).decryptor()
    padded = decryptor.update(sealed) + decryptor.finalize()
    pad = padded[-1]
    if not 1 <= pad <= BLOCK_BYTES or padded[-pad:] != bytes([pad]) * pad:
        message = f"the key {key_id.hex()} does not open {path}: the title was sealed under another"
        raise RemoteError(message, reason="bad_ciphertext")
    return padded[:-pad]


def key_path(key_id: bytes) -> str:
    """Return the path at which an origin answers for one key."""
    return f"{KEYS_PATH}/{key_id.hex()}"


def lock_playlist(text: str, path: str, key_id: bytes) -> str:
    """Name the key and its IV before each segment of the media playlist at ``path``.

    A playlist without segments (a multivariant one) stays as it is. The init segment stands before
    the first key, so it is read in the clear (RFC 8216 section 4.3.2.5).

    Raises:
        RemoteError: ``bad_playlist`` for tags that whole-segment encryption does not go with.

    """
    return "".join(f"{line}\n" for line in _locked(text.splitlines(), path, key_id))


def unlock_playlist(text: str) -> str:
    """Return a playlist without its keys, for players that are given clear segments."""
    return "".join(
        f"{line}\n" for line in text.splitlines() if not line.startswith((_KEY_TAG, _SESSION_KEY_TAG))
    )


def _locked(lines: list[str], path: str, key_id: bytes) -> Iterator[str]:
    folder, held, keyed = posixpath.dirname(path), list[str](), False
    media = any(line.startswith("#EXTINF:") for line in lines)
    for line in lines:
        if media and (line.startswith(_UNFIT_TAGS) or (keyed and line.startswith("#EXT-X-MAP:"))):
            tag = line.partition(":")[0]
            message = f"{path} has {tag} where whole segments are to be encrypted"
            raise RemoteError(message, reason="bad_playlist")
        if line.startswith("#EXTINF:"):
            held, keyed = [line], True
        elif not held:
            yield line
        elif not line or line.startswith("#"):
            held.append(line)
        else:
            segment = posixpath.normpath(posixpath.join(folder, line))
            yield f'{_KEY_TAG}METHOD=AES-128,URI="{key_path(key_id)}",IV=0x{iv_of(key_id, segment).hex()}'
            yield from [*held, line]
            held = []
    yield from held
