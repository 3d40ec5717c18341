from __future__ import annotations

import pytest

from farcast.relay.verdict import STALE_S, Standing, verdict

WELL = Standing("serving", "approved", endpoints=("a:1", "b:1"))
WHY = (("a:1", "TCP: Connection refused"),)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "Serving"),
        ({"listed": "unlisted"}, "Serving, unlisted: only who knows its address finds it"),
        ({"state": "paused", "standing": "refused"}, "Paused: "),
        (
            {"state": "hibernating", "wakes": "2026-12-01 00:00"},
            "Hibernating until 2026-12-01 00:00, because ",
        ),
        (
            {"standing": "refused", "reason": "no place"},
            "Not serving: the origin refused this relay because no ",
        ),
        ({"standing": "pending", "lost": WHY}, "Waiting for the origin to approve"),
        ({"catalog": False}, "Not serving: no catalog yet, because "),
        (
            {"lost": (*WHY, ("b:1", "x"))},
            "Not reachable: the origin cannot connect to a:1 (TCP: Connection refu",
        ),
        (
            {"lost": WHY, "endpoints": ("a:1",), "address": "ask the provider"},
            "Not reachable: the origin cannot ",
        ),
        ({"endpoints": ()}, "Not reachable: this box has no address to publish"),
        ({"lost": WHY}, "Degraded: the origin cannot connect to a:1"),
        ({"halved": WHY}, "Degraded: half of a:1 is closed"),
        ({"standing": "unknown"}, "Degraded: the origin has not answered yet"),
        (
            {"standing": "unknown", "trouble": "10.0.0.1 is no public address"},
            "Not serving: the origin does not",
        ),
        ({"stale_s": STALE_S + 60}, "Degraded: the origin has not answered for 16 minutes"),
        ({"damaged_blocks": 3}, "Degraded: 3 blocks on the disk were damaged"),
        ({"disk_full": True, "damaged_blocks": 3}, "Degraded: the disk is full"),
    ],
)
def test_the_worst_is_said_first_and_what_to_do(change: dict[str, object], sentence: str) -> None:
    said = verdict(WELL._replace(**change))  # type: ignore[arg-type] # a table of fields
    assert said.startswith(sentence), said
    assert "\n" not in said
    if not said.startswith(("Serving", "Waiting")):
        assert ";" in said, "and what to do"


def test_what_is_wrong_with_the_address_itself_is_the_mend() -> None:
    said = verdict(WELL._replace(lost=WHY, endpoints=("a:1",), address="ask the provider for a public one"))
    assert said.endswith("ask the provider for a public one")
