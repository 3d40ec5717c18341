"""The manifest: what a title is, signed by its publisher (design: Content)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .cid import RAW, Cid
from .codec import Message
from .errors import RemoteError
from .identity import Identity, open_unverified, peer_id, verify

MANIFEST_LIMIT_BYTES = 256 << 10
BASIS_POINTS = 10_000

Text = Annotated[str, Meta(max_length=400)]
LongText = Annotated[str, Meta(max_length=4_000)]
TitleId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
CidBytes = Annotated[bytes, Meta(min_length=4, max_length=128)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Points = Annotated[int, Meta(ge=1, le=BASIS_POINTS)]
PayeeId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]


class Rendition(Message, frozen=True):
    """One encoded variant: a video ladder rung or an audio rendition.

    ``path`` is its media playlist inside the folder; bit rates are bits/s; ``frame_rate_milli`` is
    frames per 1,000 s, 0 for audio, as are ``width`` and ``height``.
    """

    name: Text
    kind: Literal["video", "audio"]
    path: Text
    codecs: Text
    bandwidth: Count
    average_bandwidth: Count
    width: Count
    height: Count
    frame_rate_milli: Count
    language: Text
    segments: Count
    size_bytes: Count


class Track(Message, frozen=True):
    """A file beside the renditions: poster, subtitles, storyboard."""

    kind: Literal["poster", "subtitles", "storyboard"]
    path: Text
    language: Text
    label: Text


class Window(Message, frozen=True):
    """When a title may be played: milliseconds since 1970, 0 for no bound."""

    from_ms: Count
    until_ms: Count


class Payee(Message, frozen=True):
    """Who is paid for viewed time, and his share in basis points; all shares sum to 10,000."""

    payee: PayeeId
    points: Points


class Protection(Message, frozen=True):
    """How files are encrypted (``protocol/protection.py``): ``aes-128`` and the id of the one key."""

    scheme: Literal["aes-128"]
    key_ids: list[Annotated[bytes, Meta(min_length=16, max_length=16)]]


class Manifest(Message, frozen=True):
    """One version of a title.

    ``root`` is the binary CID of the UnixFS folder, ``supersedes`` the manifest CID it replaces
    (empty for a first version), ``territories`` ISO 3166 codes (empty: everywhere).
    """

    v: Literal[1]
    title: TitleId
    version: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    publisher: Key
    name: Text
    description: LongText
    language: Text
    duration_ms: Count
    root: CidBytes
    size_bytes: Count
    renditions: Annotated[list[Rendition], Meta(max_length=64)]
    tracks: Annotated[list[Track], Meta(max_length=64)]
    window: Window
    territories: Annotated[list[Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")]], Meta(max_length=250)]
    payees: Annotated[list[Payee], Meta(min_length=1, max_length=64)]
    access: Literal["open", "ticket"]
    protection: Protection | None
    created_ms: Count
    supersedes: Annotated[bytes, Meta(max_length=128)]

    @property
    def root_cid(self) -> Cid:
        """The folder's CID."""
        return Cid.decode(self.root)


def seal_manifest(manifest: Manifest, publisher: Identity) -> tuple[Cid, bytes]:
    """Sign ``manifest`` and return its raw block with the block's CID.

    Raises:
        RemoteError: where the manifest breaks a rule (``check_manifest``).

    """
    check_manifest(manifest)
    data = publisher.seal("manifest", manifest)
    return Cid.of(RAW, data), data


def open_manifest(data: bytes, publishers: frozenset[bytes] | None = None) -> Manifest:
    """Decode and verify a manifest block; with ``publishers``, its key must be one of them.

    Raises:
        RemoteError: ``bad_signature``, ``unknown_publisher``, ``bad_manifest`` or a codec reason.

    """
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise RemoteError(f"a manifest of {len(data)} bytes is too large", reason="too_large")
    manifest, signed = open_unverified(Manifest, data)
    if not verify("manifest", manifest.publisher, signed.body, signed.sig):
        name = peer_id(manifest.publisher)
        raise RemoteError(f"the manifest of {manifest.title} is not signed by {name}", reason="bad_signature")
    if publishers is not None and manifest.publisher not in publishers:
        name = peer_id(manifest.publisher)
        raise RemoteError(f"{name} is no publisher of this origin", reason="unknown_publisher")
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Check the rules a type cannot say: shares, root, protection.

    Raises:
        RemoteError: ``bad_manifest``.

    """
    if sum(payee.points for payee in manifest.payees) != BASIS_POINTS:
        message = f"the shares of {manifest.title} do not sum to {BASIS_POINTS} basis points"
        raise RemoteError(message, reason="bad_manifest")
    if len({payee.payee for payee in manifest.payees}) != len(manifest.payees):
        raise RemoteError(f"a payee of {manifest.title} is named twice", reason="bad_manifest")
    Cid.decode(manifest.root)
    if manifest.supersedes:
        Cid.decode(manifest.supersedes)
    if manifest.protection is not None and manifest.access != "ticket":
        raise RemoteError(f"{manifest.title} is open, so it may not be encrypted", reason="bad_manifest")
    if manifest.access == "ticket" and (manifest.protection is None or len(manifest.protection.key_ids) != 1):
        message = f"{manifest.title} needs a ticket, so it must be encrypted under exactly one key"
        raise RemoteError(message, reason="bad_manifest")
