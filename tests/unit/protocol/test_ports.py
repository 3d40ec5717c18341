"""The tiers' numbers and names are part of the wire and of every table."""

from __future__ import annotations

import pytest

from farcast.protocol.ports import Source, TierName
from farcast.protocol.pulse import Served


def test_the_tiers_are_numbered_as_pulses_name_them() -> None:
    assert [(int(tier), tier.label) for tier in TierName] == [
        (1, "cdn"),
        (2, "relay"),
        (3, "mesh"),
        (4, "satellite"),
    ]


@pytest.mark.parametrize("tier", TierName)
def test_a_source_of_each_tier_can_be_named_in_a_pulse(tier: TierName) -> None:
    source = Source(tier, "somebody", "192.0.2.1:4433", bytes(range(32)))
    named = Served(source.tier, source.key[:16], 1)
    assert named.relay == bytes(range(16))
    assert TierName(named.tier) is tier
