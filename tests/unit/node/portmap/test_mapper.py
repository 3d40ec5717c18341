import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.portmap.lease import Carrier, Lease, Wish
from farcast.node.portmap.mapper import RETRY_S, PortMapper
from farcast.node.portmap.upnp import CONFLICT, SoapError
from farcast.protocol.errors import RefusedError, UnreachableError

PORT = 7_433


class Router:
    """A router that keeps a table of mappings and may be told to misbehave."""

    name = "test"

    def __init__(self, host: str = "11.22.33.44", give: Callable[[Wish], int] | None = None) -> None:
        self.host = host
        self.give: Callable[[Wish], int] = give or _as_asked
        self.table: dict[tuple[Carrier, int], int] = {}

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map a port."""
        port = self.give(wish)
        self.table[wish.carrier, port] = wish.internal_port
        return Lease(self.host, port, ttl_s)

    async def unmap(self, wish: Wish) -> None:
        """Delete a mapping."""
        self.table.pop((wish.carrier, wish.external_port), None)


def _as_asked(wish: Wish) -> int:
    return wish.external_port


def silent(_: Wish) -> int:
    """Be no router at all."""
    raise UnreachableError("silence", reason="no_router")


def strict(_: Wish) -> int:
    """Be a router whose owner has switched mapping off."""
    raise RefusedError("the router refuses: switched off", reason="router_refused")


class Changes:
    """Counts how often the outside address became another."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        """Count one."""
        self.count += 1


def mapper(*ways: Router, changed: Callable[[], None] = lambda: None) -> PortMapper:
    return PortMapper(lambda: PORT, lambda: ways, changed, CollectorRegistry(), chance=random.Random(5))


async def test_the_first_way_that_answers_is_kept_and_a_new_address_is_told() -> None:
    router, changes = Router(), Changes()
    subject = mapper(Router(give=silent), router, changed=changes)
    pause_s = await subject.refresh()
    assert subject.mapping == ("11.22.33.44", PORT)
    assert subject.state == "mapped"
    assert 60 <= pause_s <= 600
    await subject.refresh()
    assert changes.count == 1
    router.host = "55.66.77.88"
    await subject.refresh()
    assert subject.mapping == ("55.66.77.88", PORT)
    assert changes.count == 2


async def test_both_protocols_get_one_number_or_nothing_stays() -> None:
    router = Router(give=lambda wish: wish.external_port if wish.carrier is Carrier.TCP else 50_000)
    subject = mapper(router)
    await subject.refresh()
    assert subject.mapping == ("11.22.33.44", 50_000)
    assert set(router.table) == {(Carrier.TCP, 50_000), (Carrier.UDP, 50_000)}

    numbers = iter(range(20_000, 30_000))
    stubborn = Router(give=lambda _: next(numbers))
    subject = mapper(stubborn)
    await subject.refresh()
    assert (subject.mapping, subject.state) == (None, "refused")
    assert not stubborn.table


async def test_a_taken_port_is_left_for_another() -> None:
    def give(wish: Wish) -> int:
        if wish.external_port == PORT and wish.carrier is Carrier.UDP:
            raise SoapError(CONFLICT, "ConflictInMappingEntry")
        return wish.external_port

    router = Router(give=give)
    subject = mapper(router)
    await subject.refresh()
    assert subject.mapping is not None
    assert subject.mapping.port >= 49_152
    assert set(router.table) == {(each, subject.mapping.port) for each in Carrier}


@pytest.mark.parametrize(
    ("host", "state", "words"),
    [
        ("100.64.7.8", "carrier_nat", "carrier-grade NAT"),
        ("192.168.0.2", "private", "another router"),
        ("", "private", "it tells none"),
    ],
)
async def test_an_outside_address_nobody_reaches_is_named(host: str, state: str, words: str) -> None:
    subject = mapper(Router(host))
    await subject.refresh()
    assert (subject.state, subject.mapping) == (state, None)
    assert words in subject.sentence


async def test_no_router_and_a_router_that_says_no_are_told_apart() -> None:
    subject = mapper(Router(give=silent))
    assert await subject.refresh() == RETRY_S
    assert subject.state == "no_router"
    subject = mapper(Router(give=strict), Router(give=silent))
    await subject.refresh()
    assert (subject.state, subject.sentence) == ("refused", "the router refuses: switched off")


async def test_a_router_lost_is_looked_for_again_soon() -> None:
    router, changes = Router(), Changes()
    subject = mapper(router, changed=changes)
    await subject.refresh()
    router.give = silent
    assert await subject.refresh() < 120
    assert subject.mapping is None
    assert changes.count == 2


async def test_the_mapping_is_given_back_at_the_end() -> None:
    router = Router()
    subject = mapper(router)
    keeping = asyncio.ensure_future(subject.run())
    while subject.mapping is None:  # noqa: ASYNC110 - nobody is told of the first one but by ``changed``
        await asyncio.sleep(0.001)
    assert router.table
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    assert not router.table
