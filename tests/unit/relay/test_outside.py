from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.overlay import Overlay
from farcast.node.portmap.lease import Lease, Wish
from farcast.node.settings import Settings
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import UnreachableError
from farcast.relay.outside import Outside


class Router:
    """A router that maps ports, or does not."""

    name = "PCP"

    def __init__(self, host: str) -> None:
        self.host = host
        self.mapped: set[Wish] = set()

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map, as ``Way.map``."""
        if not self.host:
            raise UnreachableError("no router answers")
        self.mapped.add(wish)
        return Lease(self.host, wish.external_port, ttl_s)

    async def unmap(self, wish: Wish) -> None:
        """Delete, as ``Way.unmap``."""
        self.mapped.discard(wish)


def outside(router: Router, changes: list[str], listens: str = "", /, **network: object) -> Outside:
    found = Settings.load(None, {})
    settings = msgspec.structs.replace(found.network, **network)
    loaded = replace(found, network=settings, listen=msgspec.structs.replace(found.listen, host=listens))
    result = Outside(
        lambda: loaded, lambda: 7_433, lambda: changes.append("changed"), CollectorRegistry(),
        ways=lambda: [router],
    )  # fmt: skip
    result._links.addresses = lambda: ["192.168.1.9"]  # type: ignore[method-assign] # a home network
    return result


async def test_a_mapped_address_is_published_and_given_back() -> None:
    router, changes = Router("11.22.33.44"), list[str]()
    found = outside(router, changes)
    async with found.asked():
        assert found.endpoints() == [Endpoint("11.22.33.44", 7_433, False)]
        assert len(router.mapped) == 2
        assert "11.22.33.44:7433" in found.sentence
        assert found.trouble == ""
    assert router.mapped == set()
    assert "changed" in changes


class Placed(Overlay):
    """A place in the overlay, whatever this machine has."""

    @property
    def addresses(self) -> list[str]:
        """This box's addresses there."""
        return ["203:f00::1"]


def told(network: Mapping[str, object], listens: str) -> list[Endpoint]:
    """Return what a box in the overlay announces."""
    found = outside(Router("11.22.33.44"), [], listens, **network)
    found.overlay = Placed()
    return found.endpoints()


def test_an_address_in_the_overlay_is_announced_too_unless_that_is_off() -> None:
    far = Endpoint("203:f00::1", 7_433, False)
    named = [Endpoint(f"r{number}.example", 7_433, False) for number in range(9)]
    assert told({"map_ports": False}, "127.0.0.1") == [Endpoint("192.168.1.9", 7_433, False)]
    for network, expected in (
        ({"announce": ["r0.example:7433"]}, [named[0], far]),
        ({"announce": [f"r{number}.example:7433" for number in range(9)]}, [*named[:7], far]),
        ({"map_ports": False}, [far]),
        ({"map_ports": False, "overlay": False}, [Endpoint("192.168.1.9", 7_433, False)]),
        ({"allow_private": True}, [Endpoint("192.168.1.9", 7_433, False), far]),
    ):
        assert told(network, "::") == expected


async def test_an_address_that_changes_is_told() -> None:
    router, changes = Router("11.22.33.44"), list[str]()
    found = outside(router, changes)
    assert found.mapper is not None
    await found.mapper.refresh()
    before = len(changes)
    await found.mapper.refresh()
    assert len(changes) == before
    router.host = "11.22.33.55"
    await found.mapper.refresh()
    assert len(changes) == before + 1
    assert found.endpoints()[0].host == "11.22.33.55"


@pytest.mark.parametrize("host", ["100.64.7.8", "192.168.0.2"])
async def test_carrier_grade_nat_is_the_trouble_by_name(host: str) -> None:
    found = outside(Router(host), [])
    async with found.asked():
        assert found.endpoints() == [Endpoint("192.168.1.9", 7_433, False)]
        assert "carrier-grade NAT" in found.trouble


async def test_no_router_is_no_trouble_of_the_address() -> None:
    found = outside(Router(""), [])
    async with asyncio.timeout(5), found.asked():
        assert (found.trouble, found.sentence) == ("", "no router answers")


async def test_what_is_announced_needs_no_router() -> None:
    for network in ({"announce": ["relay.example:7000"]}, {"map_ports": False}, {"allow_private": True}):
        found = outside(Router("11.22.33.44"), [], **network)
        assert found.mapper is None
        assert found.sentence == ""
        async with found.asked():
            pass
    named = outside(Router(""), [], announce=["relay.example:7000"])
    assert named.endpoints() == [Endpoint("relay.example", 7_000, False)]
