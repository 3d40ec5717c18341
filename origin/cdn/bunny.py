"""Bunny: purging by URL and tag, and tokens in the path.

Documented in bunny.net's "Purge Cache" (tag: ``POST /pullzone/{id}/purgeCache``), "Purge URL"
(``POST /purge?url=``) and "Advanced Token Authentication".
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import msgspec

from .adapter import DONE, Call, escaped
from .zone import Zone


class Bunny:
    """A Bunny pull zone; its number is needed for tags alone."""

    tag_header = "cdn-tag"
    at_once = 8

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def calls(self, paths: Sequence[str], tag: str) -> list[Call]:
        """Purge the tag first, then each URL; a URL that ends in a slash takes what lies below it along."""
        found: list[Call] = []
        if self.zone.zone and tag:
            url = f"{self.zone.api}/pullzone/{self.zone.zone}/purgeCache"
            body = msgspec.json.encode({"CacheTag": tag})
            found.append(Call("POST", url, body, (("content-type", "application/json"),)))
        below: dict[str, list[str]] = {}
        for path in paths:
            parts = path.split("/", 3)
            folder = f"/watch/{parts[2]}/" if parts[1] == "watch" else path
            below.setdefault(folder, []).append(path)
        return found + [
            Call(
                "POST", f"{self.zone.api}/purge?url={escaped(self.zone.base + asked)}", covers=tuple(covered)
            )
            for asked, covered in below.items()
        ]

    def credentials(self, key: str) -> dict[str, str]:
        """Prove it by the account's AccessKey."""
        return {"accesskey": key}

    def trouble(self, status: int, body: bytes) -> str:
        """Read the status and, where there is one, the API's ``Message``."""
        if status in DONE:
            return ""
        try:
            said = msgspec.json.decode(body, type=_Problem).message
        except msgspec.MsgspecError:
            said = ""
        return f"it answered {status}" + (f": {said[:200]}" if said.isprintable() and said else "")

    def signed(self, key: str, issued_s: int) -> str:
        """Put a directory token for everything below the base before its path, so that links keep it."""
        parts = urlsplit(self.zone.base)
        signing = {"token_ignore_params": "true", "token_path": self.zone.path}
        expires_s = issued_s + self.zone.token_s
        value = token(key, self.zone.path, expires_s, signing)
        fields = "&".join(f"{name}={quote(text, safe='')}" for name, text in sorted(signing.items()))
        return f"{parts.scheme}://{parts.netloc}/bcdn_token={value}&{fields}&expires={expires_s}{parts.path}"


def token(key: str, path: str, expires_s: int, parameters: Mapping[str, str]) -> str:
    """Return Bunny's token for ``path``: ``HS256-`` and base64url of an HMAC-SHA256, unpadded.

    The message is path, expiry and the parameters that are signed too, sorted by name, as they are before
    any percent-encoding (bunny.net, "Advanced Token Authentication").
    """
    signing = "&".join(f"{name}={text}" for name, text in sorted(parameters.items()))
    mac = hmac.digest(key.encode(), f"{path}{expires_s}{signing}".encode(), "sha256")
    return "HS256-" + base64.urlsafe_b64encode(mac).decode().rstrip("=")


class _Problem(msgspec.Struct, frozen=True, rename="pascal"):
    message: str = ""
