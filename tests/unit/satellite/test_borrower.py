"""What a dish asks its neighbours for, and what it makes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from farcast.protocol.errors import UnreachableError
from farcast.protocol.ports import Dialer, Reply, Source, TierName
from farcast.protocol.symbols import ASK_SYMBOLS, read_ask
from farcast.satellite.antenna import Antenna
from farcast.satellite.borrower import NEIGHBOURS_ASKED, Borrower
from farcast.satellite.receiver import Gap

SIZE = 64
HERE = Source(TierName.MESH, "next door", "10.0.0.2:7433", b"n" * 32)


class Dish:
    """Lacks some symbols of one generation."""

    def __init__(self, lacking: int) -> None:
        self.lacking = lacking
        self.got: list[bytes] = []

    async def gaps(self) -> list[Gap]:
        """Return the one gap while there is one."""
        held = len(self.got).to_bytes(4, "little")
        return [Gap(7, SIZE, self.lacking, held)] if self.lacking > 0 else []

    async def given(self, number: int, giver: Source, symbols: Sequence[bytes]) -> None:
        """Take symbols."""
        assert (number, giver) == (7, HERE)
        self.got += symbols
        self.lacking -= len(symbols)


class Wire:
    """Answers as told; an empty list of answers goes on giving what is asked for."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def request(self, source: Source, method: str, path: str, *, body: bytes, **terms: object) -> Reply:
        """Note the ask and answer."""
        assert (source, method, path) == (HERE, "POST", "/v1/symbols")
        assert terms["limit_bytes"]
        ask = read_ask(body)
        self.asked.append(ask.most)
        answer = self.answers.pop(0) if self.answers else Reply(200, {}, bytes(ask.most * (4 + SIZE)))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def errand(dish: Dish, wire: Wire, neighbours: Sequence[Source] = (HERE,)) -> CollectorRegistry:
    registry = CollectorRegistry()
    await Borrower(cast("Antenna", dish), cast("Dialer", wire), lambda: neighbours, registry).errand()
    return registry


async def test_all_that_is_lacking_comes_piece_by_piece() -> None:
    dish, wire = Dish(2 * ASK_SYMBOLS + 5), Wire()
    registry = await errand(dish, wire)
    assert wire.asked == [ASK_SYMBOLS, ASK_SYMBOLS, 5]
    assert dish.lacking == 0
    assert registry.get_sample_value("farcast_satellite_borrowed_symbols_total") == 2 * ASK_SYMBOLS + 5


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Reply(404, {}, b""), "nothing"),
        (Reply(200, {}, b""), "nothing"),
        (Reply(200, {}, bytes(67)), "bad_symbols"),
        (Reply(200, {}, bytes(11 * 68)), "bad_symbols"),
        (Reply(500, {}, b"oops"), "bad_symbols"),
        (UnreachableError("gone"), "unreachable"),
    ],
)
async def test_a_neighbour_of_no_use_is_asked_once_and_counted(
    answer: Reply | Exception, result: str
) -> None:
    dish, wire = Dish(10), Wire(answer)
    registry = await errand(dish, wire)
    assert wire.asked == [10]
    assert dish.got == []
    assert registry.get_sample_value("farcast_satellite_neighbour_asks_total", {"result": result}) == 1


async def test_nobody_is_asked_where_nothing_lacks_and_never_too_many() -> None:
    wire = Wire()
    await errand(Dish(0), wire)
    assert wire.asked == []
    deaf = Wire(*[Reply(404, {}, b"")] * 50)
    await errand(Dish(3), deaf, [HERE] * 50)
    assert len(deaf.asked) == NEIGHBOURS_ASKED
