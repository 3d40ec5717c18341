"""Players in a real Chromium: their scripts on an empty page of the gateway's own site."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farcast.tests.browser.seen import Gap, Moment, Seen
from farcast.tests.system.chromium import Tab, tab_in

PACKAGES = Path(__file__).parents[2] / "node" / "page" / "node_modules"
STAGE = Path(__file__).with_name("stage.js")
BUFFER_S = 6
"""What the scripts may hold in advance; their own 10 to 30 s would hide every fault of a short case."""
MASTER, MANIFEST = "master.m3u8", "manifest.mpd"

SHORT: dict[str, Any] = {"maxBufferLength": BUFFER_S, "maxMaxBufferLength": BUFFER_S}
IMPATIENT: dict[str, Any] = {
    "fragLoadPolicy": {
        "default": {
            "maxTimeToFirstByteMs": 1_500,
            "maxLoadTimeMs": 20_000,
            "timeoutRetry": {"maxNumRetry": 0, "retryDelayMs": 0, "maxRetryDelayMs": 0},
            "errorRetry": {"maxNumRetry": 0, "retryDelayMs": 0, "maxRetryDelayMs": 0},
        }
    }
}
SHAKA: dict[str, Any] = {"streaming": {"bufferingGoal": BUFFER_S}}
DASH: dict[str, Any] = {
    "streaming": {
        "buffer": {
            "bufferTimeDefault": BUFFER_S,
            "bufferTimeAtTopQuality": BUFFER_S,
            "bufferTimeAtTopQualityLongForm": BUFFER_S,
        }
    }
}
HLS_JS = ("hls.js/dist/hls.min.js",)
SHAKA_JS = ("shaka-player/dist/shaka-player.compiled.js",)
DASH_JS = ("dashjs/dist/modern/umd/dash.all.min.js",)
SCREENS: dict[str, tuple[str, tuple[str, ...], str, dict[str, Any]]] = {
    "hls.js": ("hls", HLS_JS, MASTER, SHORT),
    "hls.js tuned": ("hls", HLS_JS, MASTER, {**SHORT, **IMPATIENT}),
    "shaka hls": ("shaka", SHAKA_JS, MASTER, SHAKA),
    "shaka dash": ("shaka", SHAKA_JS, MANIFEST, SHAKA),
    "dash.js": ("dash", DASH_JS, MANIFEST, DASH),
    "chromium": ("native", (), MASTER, {}),
}
"""By player: what the stage calls it, its scripts, the file it opens, and its options."""


class Screen:
    """One player in one tab."""

    def __init__(self, tab: Tab, name: str) -> None:
        self.tab = tab
        self._kind, self._scripts, self._file, self._options = SCREENS[name]

    async def play(self, url: str) -> None:
        """Open ``url``, the address of a master playlist, or the manifest beside it."""
        split = urlsplit(url)
        await self.tab.go(f"{split.scheme}://{split.netloc}/healthz")
        await self.tab.call("Page.setBypassCSP", enabled=True)
        for script in self._scripts:
            await self.tab.evaluate((PACKAGES / script).read_text("utf-8") + "\n;0")
        await self.tab.evaluate(STAGE.read_text("utf-8") + "\n;0")
        options = dict(self._options)
        if self._options is not SHORT and self._kind == "hls":
            options["cmcd"] = _cmcd(url)
        address = url.removesuffix(MASTER) + self._file
        arguments = ", ".join(json.dumps(value) for value in (self._kind, address, options))
        await self.tab.evaluate(f"stage.play({arguments})")

    async def now(self) -> Moment:
        """Return where it is."""
        found = await self.tab.evaluate("stage.now()")
        return Moment(found["position_s"], found["ahead_s"], found["started"])

    async def seen(self) -> Seen:
        """Return what the page noted."""
        found = await self.tab.evaluate("stage.seen()")
        gaps = [Gap(**gap) for gap in found["gaps"]]
        return Seen(found["startup_ms"], gaps, found["errors"], found["samples"], found["late_ms"])


def missing(name: str) -> str:
    """Return what of a player's scripts is not installed, empty where nothing is."""
    absent = [script for script in SCREENS[name][1] if not (PACKAGES / script).is_file()]
    return f"{absent[0]} is not here: .ci/peers.sh players" if absent else ""


def needs_dash(name: str) -> bool:
    """Say whether a player opens the DASH manifest."""
    return name in SCREENS and SCREENS[name][2] == MANIFEST


@asynccontextmanager
async def screen(program: str, name: str) -> AsyncGenerator[Screen]:
    """Start a browser for one player; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="farcast-browser-", ignore_cleanup_errors=True) as folder:
        async with tab_in(program, Path(folder) / "profile") as tab:
            yield Screen(tab, name)


def _cmcd(url: str) -> dict[str, Any]:
    """Return how hls.js reports to the gateway, as the node's own page has it."""
    before, _, after = url.partition("/watch/")
    target = {"url": f"{before}/v1/cmcd", "events": ["ps", "t", "e"], "interval": 10}
    return {
        "contentId": after.partition("/")[0], "version": 2, "useHeaders": False, "eventTargets": [target],
    }  # fmt: skip
