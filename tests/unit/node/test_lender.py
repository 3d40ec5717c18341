"""Who is given symbols that the satellite sent, and what they are told otherwise."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest

from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.lender import AT_ONCE, Lender
from farcast.protocol.symbols import PATH, SymbolAsk, pack_ask, read_ask
from farcast.satellite.antenna import Antenna

ASK = pack_ask(SymbolAsk(1, 7, 64, b"\x01", 2))


class Attic:
    """An antenna that has ``symbols`` of every generation, once ``ready``."""

    def __init__(self, symbols: bytes) -> None:
        self.symbols = symbols
        self.asked = 0
        self.ready = threading.Event()
        self.ready.set()

    def lend(self, ask: bytes) -> bytes:
        """Give what there is, after the same look at the ask."""
        read_ask(ask)
        self.asked += 1
        assert self.ready.wait(10)
        return self.symbols


class House:
    """A box's public routes with nothing but the lender."""

    def __init__(self, symbols: bytes = bytes(2 * 68)) -> None:
        self.attic = Attic(symbols)
        self.refused: list[str] = []
        self.router = Router(Hosts(["box"]))
        self.router.refused = self.refused.append
        Lender(cast("Antenna", self.attic)).add_to(self.router)

    async def ask(self, peer: str, body: bytes = ASK) -> Answer:
        """Send an ask from an address."""

        async def read(_: int) -> bytes:
            return body

        return await self.router.handle(
            Exchange.of("POST", PATH, {"host": "box"}, peer=peer, secure=True, reader=read)
        )


async def test_a_neighbour_is_given_symbols() -> None:
    house = House()
    answer = await house.ask("127.0.0.1")
    assert (answer.status, answer.body) == (200, bytes(2 * 68))


@pytest.mark.parametrize(
    ("symbols", "body", "status", "reason"),
    [(b"", ASK, 404, "not_held"), (b"x", b"nonsense", 400, "bad_ask"), (b"x", b"", 400, "bad_ask")],
)
async def test_what_is_not_there_or_no_ask_is_said_so(
    symbols: bytes, body: bytes, status: int, reason: str
) -> None:
    house = House(symbols)
    assert (await house.ask("127.0.0.1", body)).status == status
    assert house.refused == [reason]


async def test_who_comes_third_waits_and_may_ask_again() -> None:
    house = House()
    house.attic.ready.clear()
    first = [asyncio.ensure_future(house.ask("127.0.0.1")) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    third = await house.ask("127.0.0.1")
    assert third.status == 429
    assert third.headers["retry-after"] == "2"
    house.attic.ready.set()
    assert [(await one).status for one in first] == [200] * AT_ONCE
    assert (await house.ask("127.0.0.1")).status == 200
