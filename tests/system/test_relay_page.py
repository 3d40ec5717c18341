"""The relay's page in a real Chromium: no violation for axe-core, all of it by keyboard, pictures kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.locallistener import LocalListener
from farcast.node.http.tally import HttpMetrics
from farcast.relay.page import RelayPage
from farcast.tests.system.chromium import Tab

SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
TOKEN = "t" * 22
GB = 10**9
ID = "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust"
STATUS: dict[str, Any] = {
    "verdict": "Serving", "role": "relay", "peer_id": ID, "origin": "Films of the coast",
    "standing": "approved", "reason": "", "listed": "listed", "nat": "",
    "earnings": {
        "currency": "EUR",
        "months": [
            {
                "month": "2026-11", "state": "provisional",
                "relays": [{"cents": 601, "acknowledged_gb": 300.512}],
            },
        ],
    },
    "reachability": [
        {"address": "relay.example:7433", "result": "reachable"},
        {"address": "[2001:db8::7]:7433", "result": "UDP: no answer within 4 s"},
    ],
    "contract": {
        "state": "serving", "paused_since": None, "used_bytes": 312 * GB, "up_bytes": 300 * GB,
        "down_bytes": 12 * GB, "limit_bytes": 500 * GB, "remaining_bytes": 188 * GB,
        "resets": "2026-12-01T00:00+01:00", "wakes": None, "rate_up_bps": 20_000_000, "rate_down_bps": 0,
        "quiet": True,
    },
    "serving": {"connections": 41, "up_bps": 14_600_000, "down_bps": 230_000},
    "titles": 12, "store": {"bytes": 61 * GB, "blocks": 61_042, "quota_bytes": 200 * GB},
    "holdings": [
        {"publisher": ID, "titles": 9, "bytes": 52 * GB, "budget_bytes": 60 * GB},
        {"publisher": ID[::-1], "titles": 3, "bytes": 9 * GB, "budget_bytes": None},
    ],
    "failures": {"damaged_blocks": 0.0, "rejected_blocks": 2}, "pulses_waiting": 118, "version": "0.1.0",
    "hints": {"by": "p2p", "gossip": {"state": "up", "pid": 4_711, "peers": 3, "why": ""}},
    "radio": {"up": True, "why": "", "behind": 2, "waiting": [{"carrier": ID, "batches": 2, "pulses": 31}]},
}  # fmt: skip
STATES: dict[str, dict[str, Any]] = {
    "serving": {},
    "unreachable": {
        "verdict": "Not reachable: the origin cannot connect to relay.example:7433 (TCP: Connection "
        "refused); forward TCP and UDP of that port to this box and open them in its firewall",
        "nat": "This box is behind carrier-grade NAT: its router has no public address of its own",
        "holdings": [],
    },
    "hibernating": {
        "verdict": "Hibernating until 2026-12-09 04:10, because this month's volume is used",
        "contract": {
            **STATUS["contract"], "state": "hibernating", "wakes": "2026-12-09T04:10+01:00", "quiet": False,
        },
    },
}  # fmt: skip

FOCUSED = """
(e => e.tagName + " " + (e.getAttribute("aria-labelledby") || e.textContent))(document.activeElement)
"""

SQUEEZED = """
[...document.querySelectorAll("td, th")].filter(e => e.clientWidth < 30 && e.textContent.length > 4)
.map(e => e.textContent)
"""
pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def shown() -> dict[str, Any]:
    """Return what the page is told; a test changes it."""
    return dict(STATUS)


@pytest.fixture
async def page(shown: dict[str, Any]) -> AsyncGenerator[str]:
    router = Router(Hosts(), token=TOKEN)
    RelayPage(lambda: shown, TOKEN).add_to(router)
    async with LocalListener(router, HttpMetrics(CollectorRegistry()), port=0) as listener:
        yield f"http://127.0.0.1:{listener.port}/{TOKEN}/"


async def test_every_state_in_both_schemes_and_at_phone_width_has_no_violation(
    page: str, tab: Tab, shown: dict[str, Any]
) -> None:
    for state, change in STATES.items():
        shown.update(STATUS | change)
        for scheme in ("light", "dark"):
            for width in (1100, 360):
                await tab.scheme(scheme, width=width, height=1400)
                await tab.go(page)
                await tab.look(
                    scheme, SCREENS / f"relay-{state}-{scheme}-{width}.png", width=width, height=1400
                )
                assert not await tab.axe(), (state, scheme, width)
                assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
                assert await tab.evaluate(SQUEEZED) == [], "no cell is a column of letters"
        text = await tab.evaluate("document.body.innerText")
        assert shown["verdict"] in text
        assert text.index(shown["verdict"]) < text.index("Reachability"), "the verdict comes first"
    assert not tab.complaints


async def test_all_of_it_is_reached_by_the_tab_key(page: str, tab: Tab) -> None:
    await tab.go(page)
    seen: list[str] = []
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            await tab.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        at = await tab.evaluate(FOCUSED)
        if seen and at == seen[0]:
            break
        seen.append(at)
        outline = await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or at.startswith("BODY"), f"{at} shows no focus"
    assert seen[:6] == ["A Look again", "DIV reach", "DIV month", "DIV now", "DIV holds", "DIV box"]


def test_the_sample_has_what_a_relay_says() -> None:
    """The page is shown what ``docs/cli.md`` promises of ``farcast relay status``."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
    sample = text.split("### `farcast relay status`")[1].split("```json\n")[1].split("```")[0]
    assert set(STATUS) <= set(msgspec.json.decode(sample))
