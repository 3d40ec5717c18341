"""The dish: asked every half minute how it stands, without anybody waiting for it.

It is asked over its own address, never over its link, so that costs no byte that is paid for.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter

from ...protocol.errors import RemoteError, UnreachableError, UsageError
from ..http.address import HostPort, parse_address
from .fields import Fields, field
from .schema import Schema, name_of, needs
from .standing import METHOD, SERVICE, Standing, question, read_standing

LOOK_S = 30.0
DEADLINE_S = 3.0
FRESH_S = 100.0
"""What was told longer ago is not shown: three looks found nothing."""
FILES_LIMIT = 64
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_BY_NAME, _BY_SYMBOL, _FILES, _DESCRIPTORS = 3, 4, 4, 1


class Dish:
    """A dish at ``address`` (``host:port``); ``look`` at it now and then, ``standing`` is what it told.

    Raises ``UsageError`` ``no_h2`` where the extra ``starlink`` is not installed.
    """

    def __init__(
        self, address: str, registry: CollectorRegistry, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        try:
            importlib.import_module("h2.connection")
        except ImportError as error:
            message = "[metered] dish needs the package h2; `pip install 'farcast[starlink]'` brings it"
            raise UsageError(message, reason="no_h2") from error
        self._where = parse_address(address)
        self._now_s = now_s
        self._schema: Schema | None = None
        self._told: Standing | None = None
        self._told_s = float("-inf")
        self._answers = Counter(
            "farcast_node_dish_answers", "Looks at the Starlink dish, by what came of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("ok", "unreachable", "timeout", "malformed", "oversized", "grpc", "schema"):
            self._answers.labels(result)

    @property
    def standing(self) -> Standing | None:
        """What the dish told of late; None where it told nothing."""
        return self._told if self._now_s() - self._told_s < FRESH_S else None

    async def look(self) -> None:
        """Ask the dish; what goes wrong is counted, and no more is said of it."""
        try:
            self._told = await self.ask()
        except RemoteError as error:
            self._answers.labels(error.reason).inc()
            return
        self._told_s = self._now_s()
        self._answers.labels("ok").inc()

    async def ask(self) -> Standing:
        """Ask the dish within ``DEADLINE_S``.

        Raises:
            UnreachableError: ``unreachable`` or ``timeout``.
            RemoteError: ``grpc``, ``malformed``, ``oversized`` or ``schema``.

        """
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._ask(self._where)
        except TimeoutError:
            message = f"nothing answers at {self._where.host}:{self._where.port} in {DEADLINE_S:.0f} s"
            raise UnreachableError(message, reason="timeout") from None
        except RemoteError:
            self._schema = None  # a dish that was replaced or renewed may call things otherwise
            raise

    async def _ask(self, where: HostPort) -> Standing:
        from .channel import Channel  # its library is an extra

        async with Channel(where) as channel:
            schema = self._schema
            if schema is None:
                schema = await asyncio.to_thread(Schema, await _reflected(channel.call))
            standing = read_standing(schema, await channel.call(METHOD, question(schema)))
        self._schema = schema
        return standing


async def _reflected(call: Callable[[str, bytes], Awaitable[bytes]]) -> list[bytes]:
    """Return the descriptors of the dish's service and of what those are built on, where it tells them.

    Raises:
        RemoteError: ``schema`` where it tells none, ``oversized`` for more than any dish has.

    """
    files = {
        name_of(one): one for one in _files(await call(_REFLECTION, field(_BY_SYMBOL, SERVICE.encode())))
    }
    if not files:
        raise RemoteError("what answers at the dish's address tells no schema", reason="schema")
    asked = set[str]()
    while missing := {name for one in files.values() for name in needs(one)} - files.keys() - asked:
        name = min(missing)
        asked.add(name)
        if len(files) + len(asked) > FILES_LIMIT:
            raise RemoteError("the dish's schema has no end", reason="oversized")
        for one in _files(await call(_REFLECTION, field(_BY_NAME, name.encode()))):
            files.setdefault(name_of(one), one)
    return [*files.values()]


def _files(answer: bytes) -> list[bytes]:
    """Return the descriptors of an answer of server reflection (grpc.reflection.v1alpha), none of a no."""
    found = Fields(answer).inner(_FILES)
    return found.every(_DESCRIPTORS) if found else []
