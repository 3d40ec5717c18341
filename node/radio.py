"""The radio of a box: tells the newest catalog head and what waits here, and takes what others tell.

What is heard is verified as from anybody. A head can only make this box look sooner, or show that its own
catalog is as fresh as that; a waybill is shown and told on once. Neither is paid for or acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ..mesh.radio.bulletin import NEVER_S, Bulletin, Item
from ..mesh.radio.reticulum import Reticulum as Process
from ..mesh.radio.waybills import Waybills
from ..protocol.errors import FarcastError, RemoteError
from ..protocol.identity import Identity, peer_id
from ..protocol.keyring import Keyring
from ..protocol.note import compact
from ..protocol.radio import Head, Waybill, head_datagram, open_datagram, waybill_datagram
from .box import Box, clock_ms
from .catalog.replica import Heads, Replica, catalog_name
from .settings import Reticulum

HEAD_AGAIN_S, WAYBILL_AGAIN_S = 600.0, 1_800.0
LOOK_S = 15.0
OWN_LIMIT = 16
"""Waybills of a box's own, the oldest batches first."""
LINES = 8
RECENT = 256
"""Datagrams remembered, so that what comes by several ways is looked at once."""
RESULTS = ("news", "known", "repeat", "no_keys", "stranger", "bad_signature", "malformed", "too_large")


class Body(NamedTuple):
    """What a radio needs of its box.

    ``open_batches`` blocks and returns the oldest, so many at most; ``is_carrier`` knows a relay's key.
    """

    identity: Identity
    net: bytes
    heads: Heads
    keyring: Callable[[], Keyring | None]
    open_batches: Callable[[int], Sequence[tuple[int, bytes]]]
    is_carrier: Callable[[bytes], bool]
    clock_ms: Callable[[], int]


class Radio:
    """Tells and hears by Reticulum; ``look`` is called where a newer catalog is out.

    ``advance`` takes (in a thread) the note of a head that says that the catalog here is the newest.
    """

    def __init__(
        self,
        body: Body,
        settings: Reticulum,
        registry: CollectorRegistry,
        *,
        look: Callable[[], object] = lambda: None,
        advance: Callable[[bytes], object] | None = None,
    ) -> None:
        self._body = body
        self._look, self._advance = look, advance
        self.process = Process(body.net, settings.python, settings.config, self.hear, registry)
        self.waybills = Waybills()
        self._bulletin = Bulletin(settings.rate_bps, settings.share_percent / 100)
        self._ahead: tuple[Head, bytes] | None = None
        self._told_head: tuple[int, float, Item] | None = None
        self._fresher: bytes | None = None
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._own: dict[bytes, bytes] = {}
        self._heard = Counter(
            "farcast_node_radio_heard", "Datagrams heard by radio, by what came of them.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in RESULTS:
            self._heard.labels(result)

    async def run(self) -> None:
        """Work until cancelled."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.process.run())
            tasks.create_task(self._speak())

    def again(self) -> None:
        """Start a process that was given up: the operator says so."""
        self.process.again()

    def hear(self, datagram: bytes) -> None:
        """Take what somebody said; whatever is wrong with it is counted."""
        name = sha256(datagram).digest()
        if name in self._recent:
            self._heard.labels("repeat").inc()
            return
        self._recent[name] = None
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        try:
            result = self._take(datagram)
        except RemoteError as error:
            result = error.reason
        self._heard.labels(result).inc()

    def arrived(self, batch: bytes) -> None:
        """Note, from any thread, that a batch is here; it waits nowhere any more."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.waybills.arrive, batch)

    @property
    def facts(self) -> dict[str, Any]:
        """What status shows."""
        waiting = self.waybills.waiting()
        return {
            "up": self.process.up,
            "why": self.process.why,
            "behind": self._behind,
            "waiting": [
                {"carrier": peer_id(one.carrier), "batches": one.batches, "pulses": one.pulses}
                for one in waiting
            ],
        }

    @property
    def _behind(self) -> int:
        return max(self._ahead[0].checkpoint.size - self._body.heads.catalog.size, 0) if self._ahead else 0

    def _take(self, datagram: bytes) -> str:
        keyring = self._body.keyring()
        if keyring is None:
            return "no_keys"
        found = open_datagram(datagram, catalog_name(keyring), list(keyring.catalog))
        if isinstance(found, Waybill):
            if not self._body.is_carrier(found.carrier):
                return "stranger"
            return "news" if self.waybills.take(found, datagram, self._body.clock_ms()) else "known"
        return self._take_head(found, datagram)

    def _take_head(self, head: Head, datagram: bytes) -> str:
        here, newest = self._body.heads.catalog.size, self._ahead
        if head.checkpoint.size < here or (
            newest is not None and head.checkpoint.time_ms <= newest[0].checkpoint.time_ms
        ):
            return "known"
        self._ahead = head, datagram
        if head.checkpoint.size > here:
            self._look()
        else:
            self._fresher = head.note
            self._wake.set()
        return "news"

    async def _speak(self) -> None:
        while True:
            await self._freshen()
            self.waybills.expire(self._body.clock_ms())
            own = await asyncio.to_thread(self._own_waybills)
            self._bulletin.offer(self._items(own))
            now = time.monotonic()
            while self.process.up and (datagram := self._bulletin.take(now)) is not None:
                self.process.tell(datagram)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, max(self._bulletin.wake_at - now, 1.0))):
                    await self._wake.wait()

    async def _freshen(self) -> None:
        note, self._fresher = self._fresher, None
        if note is not None and self._advance is not None:
            try:
                await asyncio.to_thread(self._advance, note)
            except FarcastError as error:
                self._heard.labels(error.reason).inc()

    def _own_waybills(self) -> list[bytes]:
        batches = self._body.open_batches(OWN_LIMIT)
        identity, known = self._body.identity, self._own
        self._own = {data: known.get(data) or waybill_datagram(data, identity) for _, data in batches}
        return [*self._own.values()]

    def _items(self, own: Sequence[bytes]) -> list[Item]:
        """Return what is worth saying, the most urgent first."""
        head = self._head(time.monotonic())
        others = [Item(datagram, NEVER_S) for datagram in self.waybills.datagrams()]
        return [*([head] if head else []), *(Item(one, WAYBILL_AGAIN_S) for one in own), *others]

    def _head(self, now_s: float) -> Item | None:
        """Return the newest head; the same one for a while, since its time alone is not worth the air."""
        size, ahead = self._body.heads.catalog.size, self._ahead
        newest = max(size, ahead[0].checkpoint.size) if ahead else size
        told = self._told_head
        if told is not None and told[0] == newest and now_s - told[1] < HEAD_AGAIN_S:
            return told[2]
        datagram = ahead[1] if ahead and ahead[0].checkpoint.size > size else self._own_head()
        if datagram is None:
            return None
        self._told_head = newest, now_s, Item(datagram, HEAD_AGAIN_S)
        return self._told_head[2]

    def _own_head(self) -> bytes | None:
        note, keyring = self._body.heads.checkpoint(), self._body.keyring()
        if note is None or keyring is None:
            return None
        for key in keyring.catalog:
            with suppress(RemoteError):
                return head_datagram(compact(note, catalog_name(keyring), key))
        return None


def heard(facts: Mapping[str, Any]) -> list[str]:
    """Say in lines for people what the facts of a radio tell."""
    lines = [f"a catalog with {facts['behind']} more entries is out"] if facts["behind"] else []
    lines += [
        f"{one['pulses']} pulses in {one['batches']} batches wait with {one['carrier']}"
        for one in facts["waiting"][:LINES]
    ]
    if not facts["up"]:
        lines.append(f"does not run{': ' if facts['why'] else ''}{facts['why']}")
    return lines or ["runs; nothing waits anywhere that it heard of"]


def radio_of(box: Box, net: bytes, replica: Replica, keyring: Callable[[], Keyring | None]) -> Radio:
    """Return the radio of a box that follows a catalog and carries pulses for others."""

    def is_relay(key: bytes) -> bool:
        return any(key == record.relay for record in replica.relays())

    return Radio(
        Body(box.identity, net, replica, keyring, box.spool.open_batches, is_relay, clock_ms),
        box.settings.reticulum,
        box.registry,
        look=lambda: box.wake("follow"),
        advance=lambda note: replica.advance(note, replica.catalog.size, []),
    )
