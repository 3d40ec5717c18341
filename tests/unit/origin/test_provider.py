from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.provider import GATEWAY, Provider, Ring, Wanted, multiaddr, provider
from farcast.protocol.directory import Endpoint

PLAIN, SIX, WEB = (
    "/ip4/203.0.113.7/tcp/7433/http",
    "/ip6/2001:db8::7/tcp/7433/http",
    "/dns4/r.example/tcp/443/tls/http",
)
BOTH = Provider("12D3KooWone", (PLAIN, SIX, WEB), 9)
PROVIDERS = st.lists(
    st.text("abcdef", min_size=1).map(lambda name: Provider(name, (PLAIN,), 9)), unique=True, max_size=30
)


@pytest.mark.parametrize(
    ("endpoint", "addr"),
    [
        (Endpoint("203.0.113.7", 7433, web=False), PLAIN),
        (Endpoint("2001:db8::7", 7433, web=False), SIX),
        (Endpoint("R.example", 443, web=True), WEB),
        (Endpoint("203.0.113.7", 8443, web=True), "/ip4/203.0.113.7/tcp/8443/tls/http"),
    ],
)
def test_an_endpoint_is_written_as_ipfs_clients_read_it(endpoint: Endpoint, addr: str) -> None:
    assert multiaddr(endpoint) == addr


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("r.example", 7433, web=False),  # a name in clear text: Kubo refuses it
        Endpoint("fe80::1%eth0", 7433, web=False),
        Endpoint("r.example/tcp/80/http", 443, web=True),
        Endpoint("", 443, web=True),
        Endpoint("r..example", 443, web=True),
        Endpoint("r.example\n", 443, web=True),
    ],
)
def test_what_no_client_could_ask_is_not_named(endpoint: Endpoint) -> None:
    assert multiaddr(endpoint) is None
    assert provider("12D3KooWone", [endpoint], 9) is None


@given(st.ip_addresses(), st.integers(1, 65_535), st.booleans())
def test_every_address_makes_one_component_each(
    host: IPv4Address | IPv6Address,
    port: int,
    web: bool,  # noqa: FBT001 - hypothesis fills it
) -> None:
    parts = (multiaddr(Endpoint(str(host), port, web)) or "").split("/")
    assert parts == ["", f"ip{host.version}", str(host), "tcp", str(port), *(["tls"] if web else []), "http"]


@given(st.text(max_size=40))
def test_no_host_slips_another_component_in(host: str) -> None:
    addr = multiaddr(Endpoint(host, 443, web=True))
    assert addr is None or addr.count("/") == 6


def test_a_record_is_of_the_peer_schema() -> None:
    assert BOTH.record() == {
        "Schema": "peer",
        "ID": "12D3KooWone",
        "Addrs": [PLAIN, SIX, WEB],
        "Protocols": [GATEWAY],
    }


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ({}, (PLAIN, SIX, WEB)),
        ({"filter-addrs": ""}, (PLAIN, SIX, WEB)),
        ({"filter-addrs": "tls"}, (WEB,)),
        ({"filter-addrs": "HTTPS"}, (WEB,)),
        ({"filter-addrs": "ip6,dns4"}, (SIX, WEB)),
        ({"filter-addrs": "!tls"}, (PLAIN, SIX)),
        ({"filter-addrs": "http,!ip6"}, (PLAIN, WEB)),
        ({"filter-addrs": "quic-v1,webtransport"}, ()),
        ({"filter-addrs": "unknown"}, ()),  # ours are all known
        ({"filter-addrs": "!http"}, ()),
        ({"filter-protocols": GATEWAY.upper()}, (PLAIN, SIX, WEB)),
        ({"filter-protocols": f"transport-bitswap, {GATEWAY}", "filter-addrs": "dns4"}, (WEB,)),
        ({"filter-protocols": "transport-bitswap"}, ()),
        ({"filter-protocols": "unknown"}, ()),
    ],
)
def test_filters_leave_what_a_client_can_use(query: dict[str, str], left: Sequence[str]) -> None:
    found = Wanted(query).of(BOTH)
    assert (found.addrs if found else ()) == left
    assert found is None or found._replace(addrs=BOTH.addrs) == BOTH


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_filter_only_takes_away(addrs: str, protocols: str) -> None:
    found = Wanted({"filter-addrs": addrs, "filter-protocols": protocols}).of(BOTH)
    assert found is None or set(found.addrs) <= set(BOTH.addrs)


@given(PROVIDERS, st.binary(min_size=32, max_size=32))
def test_a_ring_names_everybody_once_and_the_same_way_each_time(found: list[Provider], digest: bytes) -> None:
    order = list(Ring(found).around(digest))
    assert sorted(order) == sorted(found)
    assert list(Ring(found[::-1]).around(digest)) == order


def test_where_not_all_can_be_named_each_is_named_for_some_titles() -> None:
    ring = Ring([Provider(f"relay {number}", (PLAIN,), 9) for number in range(300)])
    named: set[str] = set()
    for title in range(200):
        around = ring.around(title.to_bytes(32, "big"))
        named |= {next(around).peer_id for _ in range(99)}
    assert len(named) == 300
