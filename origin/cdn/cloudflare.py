"""Cloudflare: purging by URL and tag, and a token in the query.

Documented in Cloudflare's API reference, "Purge Cached Content" (``POST /zones/{id}/purge_cache``), in
"Purge cache by cache-tags", and for tokens in the Rules language reference, "HMAC validation".
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Sequence

import msgspec

from .adapter import DONE, Call
from .zone import Zone

URLS_PER_CALL = 100
"""What every plan takes in one request."""


class Cloudflare:
    """A zone behind Cloudflare."""

    tag_header = "cache-tag"
    at_once = 4

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def calls(self, paths: Sequence[str], tag: str) -> list[Call]:
        """Purge the tag first, then the URLs, a hundred at a time."""
        files = (
            self._call({"files": [self.zone.base + path for path in batch]}, batch)
            for batch in _batches(paths)
        )
        return [*([self._call({"tags": [tag]}, ())] if tag else []), *files]

    def credentials(self, key: str) -> dict[str, str]:
        """Prove it by an API token with the permission to purge this zone."""
        return {"authorization": f"Bearer {key}"}

    def trouble(self, status: int, body: bytes) -> str:
        """Believe nothing but a 200 whose document says ``success``."""
        try:
            said = msgspec.json.decode(body, type=_Said)
        except msgspec.MsgspecError:
            said = _Said()
        if status in DONE and said.success:
            return ""
        words = "; ".join(f"{error.message[:200]} ({error.code})" for error in said.errors[:3])
        return f"it answered {status}" + (f": {words}" if words and words.isprintable() else "")

    def signed(self, key: str, issued_s: int) -> str:
        """Add ``?verify=`` with a token over the base's path, which every request below it then carries."""
        return f"{self.zone.base}?verify={timed_mac(key, self.zone.path, issued_s)}"

    def _call(self, what: dict[str, list[str]], covers: tuple[str, ...]) -> Call:
        url = f"{self.zone.api}/zones/{self.zone.zone}/purge_cache"
        return Call("POST", url, msgspec.json.encode(what), (("content-type", "application/json"),), covers)


def timed_mac(key: str, message: str, issued_s: int) -> str:
    """Return ``timestamp-mac`` as ``is_timed_hmac_valid_v0`` with the flag ``'s'`` takes it after a message.

    The MAC is an HMAC-SHA256 over message and timestamp, in URL-safe base64 without padding; the separator
    between the two is not part of it (Cloudflare, Rules language, "HMAC validation").
    """
    mac = hmac.digest(key.encode(), f"{message}{issued_s:010}".encode(), "sha256")
    return f"{issued_s:010}-{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _batches(paths: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for at in range(0, len(paths), URLS_PER_CALL):
        yield tuple(paths[at : at + URLS_PER_CALL])


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class _Said(msgspec.Struct, frozen=True):
    success: bool = False
    errors: list[_Error] = []
