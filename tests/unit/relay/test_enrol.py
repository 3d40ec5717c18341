from __future__ import annotations

import pytest

from farcast.node.ladder.tiers import relay_sources
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.errors import UsageError
from farcast.protocol.identity import Identity
from farcast.relay.enrol import announced

RELAY = Identity(b"\7" * 32)


def test_addresses_and_fronts_are_announced_as_such() -> None:
    assert announced(
        [
            "r.example:7433",
            "[2001:db8::7]:7433",
            "https://r.example",
            "https://r.example:8443",
            "https://[2001:db8::7]",
        ]
    ) == [
        Endpoint("r.example", 7433, web=False),
        Endpoint("2001:db8::7", 7433, web=False),
        Endpoint("r.example", 443, web=True),
        Endpoint("r.example", 8443, web=True),
        Endpoint("2001:db8::7", 443, web=True),
    ]


@pytest.mark.parametrize(
    "text", ["r.example", "https://", "https://r.example:", "https://r.example:99999", ":1"]
)
def test_what_is_no_place_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="neither host:port nor https://host"):
        announced([text])


def test_nodes_come_to_the_endpoint_that_proves_a_relays_key_never_to_its_front() -> None:
    web, plain = Endpoint("r.example", 443, web=True), Endpoint("r.example", 7433, web=False)
    records = [RelayRecord(1, RELAY.key, endpoints, "", 0, 10) for endpoints in ([web, plain], [web])]
    [source] = relay_sources(records, 5)
    assert (source.address, source.key) == ("r.example:7433", RELAY.key)
    assert relay_sources(records, 10) == []


def test_an_address_in_the_overlay_is_one_more_and_only_for_who_is_there() -> None:
    plain, far = Endpoint("r.example", 7433, web=False), Endpoint("203:f00::1", 7433, web=False)
    records = [RelayRecord(1, RELAY.key, endpoints, "", 0, 10) for endpoints in ([far, plain], [far])]
    assert [source.address for source in relay_sources(records, 5)] == ["r.example:7433"]
    there = [source.address for source in relay_sources(records, 5, overlay=True)]
    assert there == ["r.example:7433", *["[203:f00::1]:7433"] * 2]
