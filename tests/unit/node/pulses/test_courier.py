"""The courier: what waits goes to whoever answers, and the acks are found whoever has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.pulses.acks import Acks
from farcast.node.pulses.batcher import Batcher
from farcast.node.pulses.courier import CONTACT_MS, LOOK_LAST_MS, Courier
from farcast.node.pulses.spool import DiskSpool
from farcast.protocol.batch import Ack, PulsePost, TidAck, seal_receipt
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Reply, Source, SpooledPulse, TierName
from farcast.protocol.pulse import ACTIVE, PulseSigner, Viewing, read_pulse
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice

ORIGIN = Identity(b"\1" * 32)
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
SESSION = Identity(b"\2" * 32)
TID = bytes(16)
GRANT = TicketOffice(ORIGIN, b"secret").issue(TID, 20_000, SESSION.key, Holder(bytes(16), 0))


class Carrier:
    """A relay: takes posts with a receipt and answers with the acks it has.

    ``up`` says whether it runs, ``full`` whether it refuses posts.
    """

    def __init__(self, number: int) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.source = Source(TierName.RELAY, f"relay-{number}", "127.0.0.1:1", self.identity.key)
        self.up, self.full = True, False
        self.seqs: list[int] = []
        self.acks: list[bytes] = []
        self.asked = self.pinged = 0

    def answer(self, path: str, body: bytes) -> Reply:
        """Do what a relay does."""
        self.pinged += path == "/healthz"
        if path == "/v1/pulses" and self.full:
            return Reply(429, {}, b"")
        if path == "/v1/pulses":
            post = decode(PulsePost, body)
            self.seqs += [read_pulse(item)[0].seq for item in post.pulses]
            return Reply(202, {}, seal_receipt(post.pulses, NOON_MS, self.identity))
        if path.startswith("/v1/acks/"):
            self.asked += 1
            return Reply(200, {}, encode(self.acks)) if self.acks else Reply(404, {}, b"")
        return Reply(200, {}, b"ok\n")


class Town:
    """Carriers, an origin that only answers for acks, and a courier between them and a real spool."""

    def __init__(self, home: Path) -> None:
        registry = CollectorRegistry()
        self.one, self.two, self.origin = Carrier(11), Carrier(12), Carrier(13)
        self.spool = DiskSpool(home / "spool.db", registry)
        keys = [ORIGIN.key]
        keyring = Keyring(1, "test", ORIGIN.key, keys, keys, keys, keys, keys, [], [])
        acks = Acks(self.spool, lambda: keyring, registry)
        batcher = Batcher(self.spool, ORIGIN, self, list, acks, lambda: NOON_MS, registry)
        self.courier = Courier(
            self.spool, self, acks, lambda: [self.one.source, self.two.source],
            lambda: [self.origin.source], batcher, lambda: self.now_ms, registry,
        )  # fmt: skip
        self.now_ms = NOON_MS
        self._signer = PulseSigner(GRANT.ticket, GRANT.key, SESSION)

    def watch(self) -> None:
        """Sign and spool a pulse."""
        pulse = self._signer.sign(NOON_MS, 0, 1, Viewing(ACTIVE, bytes(32), 0, 0, [], bytes(16)))
        item = SpooledPulse(TID, self._signer.seq, pulse, GRANT.ticket, NOON_MS, own=True)
        assert self.spool.add([item]) == 1

    async def round(self) -> None:
        """Make a round that is due."""
        self.now_ms += LOOK_LAST_MS
        await self.courier.errand()

    def acked(self, upto: int) -> bytes:
        """Return the origin's ack of numbers 1 to ``upto``, each later one newer."""
        ack = Ack(1, bytes(32), [TidAck(TID, upto, [], [])], "segment", 0, 1, bytes(32), NOON_MS + upto)
        return ORIGIN.seal("ack", ack)

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Reach the carrier with the source's key, where it is up."""
        del method, headers, limit_bytes, timeout_s
        place = source.address.removeprefix("http://")
        carrier = next(one for one in (self.one, self.two, self.origin) if one.source.name == source.name)
        assert carrier.source.address == place
        if not carrier.up:
            raise UnreachableError(f"{source.name} is silent")
        return carrier.answer(path, body)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    yield made
    made.spool.close()


async def test_a_carrier_that_knows_less_does_not_keep_the_others_from_being_asked(town: Town) -> None:
    town.watch()
    await town.round()
    town.one.acks, town.one.full = [town.acked(1)], True
    town.watch()
    await town.round()
    assert (town.one.seqs, town.two.seqs) == ([1], [1, 2])
    assert [item.seq for item in town.spool.pending(10)] == [2]  # the first relay has only heard of 1
    town.two.acks = [town.acked(2)]
    await town.round()
    assert town.spool.pending(10) == []


async def test_the_origin_is_asked_for_acks_only_while_no_carrier_answers(town: Town) -> None:
    town.origin.acks = [town.acked(1)]
    town.watch()
    await town.round()
    await town.round()
    assert (town.one.asked, town.two.asked, town.origin.asked) == (2, 0, 0)
    town.one.up = False
    await town.round()  # the second relay takes it too, and has nothing to say yet
    assert (town.two.asked, town.origin.asked) == (1, 0)
    town.two.up = False
    await town.round()
    assert town.origin.asked == 1
    assert town.spool.pending(10) == []


async def test_with_nothing_to_hand_over_an_uplink_that_works_is_left_alone(town: Town) -> None:
    await town.courier.errand()
    for _ in range(30):
        town.now_ms += 2_000
        await town.courier.errand()
    assert (town.courier.reachable, town.one.pinged) == (True, 1)
    town.watch()
    town.now_ms += 2_000
    await town.courier.errand()
    assert town.one.seqs == [1], "news goes at once"
    town.one.acks = [town.acked(1)]
    await town.round()
    await town.round()
    pinged = town.one.pinged
    town.now_ms += CONTACT_MS
    await town.courier.errand()
    assert town.one.pinged == pinged + 1


async def test_an_uplink_that_is_gone_is_looked_for_ever_less_often_and_found_within_seconds(
    town: Town,
) -> None:
    town.one.up = town.two.up = town.origin.up = False
    for _ in range(120):
        town.now_ms += 2_000
        await town.courier.errand()
    assert not town.courier.reachable
    town.one.up = True
    await town.round()
    assert town.courier.reachable


async def test_the_way_a_pulse_left_by_is_noted_for_its_viewer(town: Town) -> None:
    town.watch()
    town.one.up = town.two.up = town.origin.up = False
    await town.round()
    (waiting,) = town.spool.sent(0, 9)
    assert (waiting.way, waiting.left_ms) == ("", 0)
    town.two.up = True
    await town.round()
    (taken,) = town.spool.sent(0, 9)
    assert (taken.way, taken.left_ms, taken.acked_ms) == ("relay", town.now_ms, 0)
    town.two.acks = [town.acked(1)]
    await town.round()
    (acked,) = town.spool.sent(0, 9)
    assert (acked.way, acked.acked_ms) == ("relay", NOON_MS + 1)
