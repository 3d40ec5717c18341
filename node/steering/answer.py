"""What a steering server says: which pathway first, and where the relays are that a master may lack.

The JSON of HLS (draft-ietf-hls-rfc8216bis, section 7.2) and of DASH (ETSI TS 103 998) is one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from .hls import Stable
from .pathway import HERE, Pathway, ranked

TTL_S = 30
_HTTPS = "https://"


def steering(
    ways: Sequence[Pathway], lost: Collection[str], reload_uri: str, folder: str, ids: Stable, *, https: bool
) -> dict[str, Any]:
    """Return the steering manifest for ``ways``; ``reload_uri`` is where the next one is asked for.

    Relays are named as clones too: a player whose master is older learns of them, one that knows them
    leaves its own as they are. HOST alone would lose a port, so every playlist is named, by stable id.
    """
    order = ranked(ways, lost)
    clones = [_clone(way, folder, ids, https=https) for way in order if way.name.startswith("relay-")]
    return {
        "VERSION": 1,
        "TTL": TTL_S,
        "RELOAD-URI": reload_uri,
        "PATHWAY-PRIORITY": [way.name for way in order],
        **({"PATHWAY-CLONES": clones} if clones else {}),
    }


def _clone(way: Pathway, folder: str, ids: Stable, *, https: bool) -> dict[str, Any]:
    replacement: dict[str, Any] = {
        "PER-VARIANT-URIS": {name: f"{way.base}{folder}{path}" for name, path in ids.variants.items()},
        "PER-RENDITION-URIS": {name: f"{way.base}{folder}{path}" for name, path in ids.renditions.items()},
    }
    host = way.base.removeprefix(_HTTPS)
    if https and way.base.startswith(_HTTPS) and ":" not in host and "/" not in host:
        replacement["HOST"] = host  # for players that know nothing else; the site is on 443 too
    return {"BASE-ID": HERE, "ID": way.name, "URI-REPLACEMENT": replacement}
