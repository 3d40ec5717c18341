"""A real browser by its own protocol (Chrome DevTools Protocol over its WebSocket), no driver between."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--mute-audio",
    "--remote-debugging-port=0", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
START_TIMEOUT_S, CALL_TIMEOUT_S, STOP_TIMEOUT_S = 30.0, 20.0, 10.0
AXE_CORE = Path(__file__).parents[2] / "node" / "page" / "node_modules" / "axe-core" / "axe.min.js"
_SOCKET = re.compile(rb"ws://\S+")


class Tab:
    """One page: navigate, evaluate, take pictures; ``complaints`` gathers what the console says."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session = ""
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def open(self, *, apart: bool = False) -> None:
        """Make the tab; ``apart`` in a context of its own, which ends with the connection."""
        context: dict[str, str] = {}
        if apart:
            made = await self.call("Target.createBrowserContext", disposeOnDetach=True)
            context["browserContextId"] = made["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", **context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call the browser; raises ``RuntimeError`` with its own words where it refuses."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        found = await asyncio.wait_for(answer, CALL_TIMEOUT_S)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        return dict[str, Any](found["result"])

    async def go(self, url: str) -> None:
        """Open ``url`` and wait until it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), CALL_TIMEOUT_S)

    async def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - JavaScript values
        """Return the value of an expression, awaited where it is a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, expression: str, timeout_s: float) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout_s
        while not await self.evaluate(expression):
            assert time.monotonic() < deadline, f"{timeout_s:g} s passed until {expression}"
            await asyncio.sleep(0.05)

    async def narrow(self, bytes_per_s: float) -> None:
        """Let so much reach the page each second; -1 lets everything."""
        await self.call(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=0,
            downloadThroughput=bytes_per_s,
            uploadThroughput=-1,
        )

    async def cover(self) -> None:
        """Open another tab before this one."""
        session, self._session = self._session, ""  # a target is the browser's affair, not the tab's
        try:
            await self.call("Target.createTarget", url="about:blank")
        finally:
            self._session = session

    async def axe(self) -> list[str]:
        """Return the violations that axe-core finds on the page; skips where it is not installed."""
        source = AXE_CORE.read_text("utf-8") if AXE_CORE.is_file() else ""
        if not source:
            pytest.skip("axe-core is not here: .ci/peers.sh players")
        await self.call("Page.setBypassCSP", enabled=True)
        await self.evaluate(source + "; true")
        found = await self.evaluate("axe.run().then(found => JSON.stringify(found.violations))")
        return [
            f"{violation['id']}: {violation['help']}: {[node['html'] for node in violation['nodes']]}"
            for violation in json.loads(found)
        ]

    async def scheme(self, scheme: str, *, width: int = 1100, height: int = 820) -> None:
        """Show the page in a light or dark ``scheme``, so wide and so high."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def look(self, scheme: str, path: Path, *, width: int = 1100, height: int = 820) -> None:
        """Save a picture of the page in a light or dark ``scheme``."""
        await self.scheme(scheme, width=width, height=height)
        shot = await self.call("Page.captureScreenshot", format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240 - a few bytes, in a test

    async def listen(self) -> None:
        """Take what the browser sends until it closes the socket."""
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            else:
                self._note(found["method"], found["params"])

    def _note(self, method: str, found: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(f"{found['request']['method']} {found['request']['url']}")
            case "Network.loadingFailed" if not found.get("canceled"):
                self.complaints.append(f"not loaded: {found['errorText']} {found.get('blockedReason', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {found['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if found["type"] in ("error", "warning", "assert"):
                self.complaints.append(f"console: {[value.get('value') for value in found['args']]}")
            case "Log.entryAdded" if found["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"log: {found['entry']['text']} {found['entry'].get('url', '')}")
            case _:
                pass


class Browser:
    """A running browser, for as many tabs as are wanted, one after the other or together."""

    def __init__(self, program: str, profile: Path, *flags: str) -> None:
        """Start it with an empty profile and ``flags``."""
        profile.mkdir()
        self._process = subprocess.Popen(
            [program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._address = Future[str]()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @asynccontextmanager
    async def tab(self, *, apart: bool = False) -> AsyncGenerator[Tab]:
        """Open a tab; ``apart`` with cookies, storage and cache of its own, which go with it."""
        address = await asyncio.wait_for(asyncio.wrap_future(self._address), START_TIMEOUT_S)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(address, max_msg_size=0) as socket,
            asyncio.TaskGroup() as tasks,
        ):
            tab = Tab(socket)
            listening = tasks.create_task(tab.listen())
            await tab.open(apart=apart)
            yield tab
            listening.cancel()

    def close(self) -> None:
        """End it."""
        os.killpg(self._process.pid, signal.SIGTERM)  # a session of its own: its helpers go with it
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(STOP_TIMEOUT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        """Learn where the browser listens from what it says first; take the rest, lest its pipe fills."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            found = _SOCKET.search(line)
            if found and not self._address.done():
                self._address.set_result(found[0].decode())
        if not self._address.done():
            self._address.set_exception(AssertionError("the browser ended before it listened"))


@asynccontextmanager
async def tab_in(program: str, profile: Path, *flags: str) -> AsyncGenerator[Tab]:
    """Start the browser with an empty profile and ``flags`` and open one tab; it is gone afterwards."""
    browser = await asyncio.to_thread(Browser, program, profile, *flags)
    try:
        async with browser.tab() as tab:
            yield tab
    finally:
        await asyncio.to_thread(browser.close)
