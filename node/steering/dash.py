"""The derived MPD: a title's own, with a BaseURL for each pathway and the steering server's address.

Rules: ETSI TS 103 998 (DASH-IF content steering). Text is put in rather than the tree written again,
so that all else stays the publisher's, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from ...protocol.errors import RemoteError
from .pathway import Pathway

_MPD = re.compile(r"<MPD\b[^>]*[^/]>(\s*<ProgramInformation\b.*?</ProgramInformation>)*", re.DOTALL)
_BASE = re.compile(r"\s*<BaseURL\b[^>]*>([^<]*)</BaseURL>")
_PERIOD = re.compile(r"\s*<Period\b")


def derived(mpd: str, folder: str, ways: Sequence[Pathway], steering: str, first: str) -> str:
    """Write the MPD for ``ways``; arguments as for HLS.

    Raises:
        RemoteError: ``bad_playlist`` where it is no MPD with a period.

    """
    opened = _MPD.search(mpd)
    period = _PERIOD.search(mpd, opened.end()) if opened else None
    if opened is None or period is None:
        raise RemoteError("a manifest.mpd without an MPD element and a period", reason="bad_playlist")
    between = mpd[opened.end() : period.start()]
    base = _BASE.search(between)
    below = base[1].strip() if base else ""
    places = "".join(
        f'\n  <BaseURL serviceLocation="{escape(way.name)}">{escape(way.base + folder + below)}</BaseURL>'
        for way in ways
    )
    tag = (
        f'\n  <ContentSteering defaultServiceLocation="{escape(first)}" queryBeforeStart="false">'
        f"{escape(steering)}</ContentSteering>"
    )  # fmt: skip
    return mpd[: opened.end()] + places + _BASE.sub("", between) + tag + mpd[period.start() :]
