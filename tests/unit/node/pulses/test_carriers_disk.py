"""What a carrier learns: its whole disk is read after real pulses of two viewers and two days went through.

Neither content nor account nor device is there in the clear, and nothing of eight bytes or more is the
same in two days of one viewer, but what is the same in everybody's pulses.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.pulses.heartbeat import Evidence, Heartbeat
from farcast.node.pulses.wallet import Wallet
from farcast.protocol.beacon import Beacon
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import UnreachableError
from farcast.protocol.identity import Identity, Signed, peer_id
from farcast.protocol.pulse import ACTIVE, RETURN, START, SWITCH, Pulse, Served, read_pulse
from farcast.protocol.ticket import DAY_MS, Holder, TicketGrant
from farcast.protocol.viewing import PulseDue
from farcast.tests.unit.node.pulses.country import Country, Node, Post
from farcast.tests.unit.node.pulses.disks import disk_of, rows_of, shared, values, windows
from farcast.tests.unit.origin.mint import FIRST_DAY, OFFICE, RELAY, TICKET, open_intake

DAY = FIRST_DAY + 2
MANIFEST = Cid.of(RAW, b"the manifest of a film")
BLOCK = b"a block of the film" * 99
BEACON = Beacon(1, DAY * 24, sha256(b"beacon").digest(), DAY * DAY_MS)
ACCOUNTS = {"ann": sha256(b"account of ann").digest()[:16], "bob": sha256(b"account of bob").digest()[:16]}
SOURCES = [Served(tier, RELAY.key[:16] if tier == 2 else b"", 1_000 * tier) for tier in (1, 2, 3, 4)]
ORIGINS_OWN = encode(BEACON.number)
"""What may come twice: the beacon's number, which the origin gave everybody."""


class Secrets(NamedTuple):
    """What of a viewer nobody but the origin, and the viewer, may know."""

    device: Identity
    sessions: list[Identity]
    ticket_keys: list[bytes]


async def watch(country: Country, node: Node, account: bytes) -> Secrets:
    """Watch half an hour on each of two days as a viewer's node does, everything real but the player."""
    device = Identity(sha256(node.name.encode()).digest())
    sessions: list[Identity] = []
    seeds = iter(range(1_000))

    def entropy(size: int) -> bytes:
        seed = sha256(f"{node.name} {next(seeds)}".encode()).digest()[:size]
        sessions.append(Identity(seed))
        return seed

    wallet = Wallet(country.folder / f"{node.name}.db", entropy=entropy)
    heartbeat = Heartbeat(
        node.spool, wallet, CollectorRegistry(), digest=lambda _: MANIFEST.digest, served=lambda _: SOURCES,
        beacon=lambda: BEACON, clock_ms=country.clock_ms,
    )  # fmt: skip

    async def issue(wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        return [
            OFFICE.issue(sha256(b"tid" + key).digest()[:16], day, key, Holder(account, 0))
            for day, key in wanted
        ]

    country.now_ms = DAY * DAY_MS + 3_600_000
    assert await heartbeat.renew(issue, [TICKET.key]) > 1
    for day in (DAY, DAY + 1):
        for minute in range(31):
            country.now_ms = day * DAY_MS + 20 * 3_600_000 + minute * 60_000
            state = {0: START, 10: SWITCH, 20: RETURN}.get(minute, ACTIVE)
            due = PulseDue(state, "film", 60_000 if state == ACTIVE else 0, minute * 60_000, 0.0)
            assert await heartbeat.beat(due, Evidence(1, BLOCK))
    keys = list(wallet.ticket_keys().values())
    wallet.close()
    return Secrets(device, sessions, keys)


def by_ticket(box: Post) -> dict[bytes, list[bytes]]:
    """Return the pulses and the ticket of each ticket as they lie on a box's disk."""
    found: dict[bytes, list[bytes]] = {}
    for item in box.spool.pending(999):
        found.setdefault(item.tid, [item.ticket]).append(item.pulse)
    return found


async def test_a_carriers_whole_disk_tells_neither_content_nor_account_nor_links_two_days(
    tmp_path: Path,
) -> None:
    country = Country(tmp_path, open_intake(tmp_path), DAY * DAY_MS)
    ann, bob, cleo = country.node("ann"), country.node("bob"), country.node("cleo")
    north, south = country.relay("north"), country.relay("south")
    told = {node.name: await watch(country, node, ACCOUNTS[node.name]) for node in (ann, bob)}
    country.connect(("ann", "cleo"), ("bob", "cleo"), ("cleo", "north"), ("north", "south"))
    ann.neighbours = bob.neighbours = ["cleo"]
    await cleo.courier.errand()  # so that she knows that she has an uplink
    for node in (ann, bob):
        await node.porter.errand()
    await cleo.courier.errand()
    country.now_ms += 60_000
    north.batcher.close()
    with pytest.raises(UnreachableError):
        await north.batcher.flush()
    assert (cleo.held(), north.held(), len(south.spool.carried(9))) == (124, 124, 1)
    secrets: dict[str, list[bytes]] = {
        "content": [MANIFEST.digest, str(MANIFEST).encode(), BLOCK[:32], b"film"],
        "account": list(ACCOUNTS.values()),
        "device": [x for one in told.values() for x in (one.device.key, peer_id(one.device.key).encode())],
        "keys": [key for one in told.values() for key in one.ticket_keys],
        "seeds": [sha256(f"{name} {at}".encode()).digest() for name in told for at in range(2)],
    }
    for box in (cleo, north, south):
        disk = disk_of(box.folder)
        assert len(disk) > 124 * 330 or box is south
        for what, needles in secrets.items():
            assert not [needle for needle in needles if needle in disk], (box.name, what)
    for box in (cleo, north):
        lying = by_ticket(box)
        assert len(lying) == 4
        whose = {
            tid: next(
                name for name, one in told.items() if _session(parts[0]) in {s.key for s in one.sessions}
            )
            for tid, parts in lying.items()
        }
        days: dict[str, list[bytes]] = {name: [tid for tid in lying if whose[tid] == name] for name in told}
        for name, (first, second) in days.items():
            [other] = [one for one in days if one != name]
            everybodys = windows((part for tid in days[other] for part in lying[tid]), ORIGINS_OWN)
            alike_bytes = windows(lying[first], ORIGINS_OWN) & windows(lying[second], ORIGINS_OWN)
            assert alike_bytes - everybodys == set(), (
                "only the frame of a message, and times, are everybody's"
            )
            assert {v for part in lying[first] for v in values(part)}.isdisjoint(
                v for part in lying[second] for v in values(part)
            ), "no field of eight bytes or more comes twice"
        rows = rows_of(box.folder)
        for first, second in days.values():
            alike = shared(rows, first, second)
            assert alike <= {north.identity.peer_id}, "but the name of the relay that promised"
    country.close()


async def test_the_box_has_one_length_whatever_it_says(tmp_path: Path) -> None:
    country = Country(tmp_path, open_intake(tmp_path), DAY * DAY_MS)
    ann = country.node("ann")
    await watch(country, ann, ACCOUNTS["ann"])
    pulses = [read_pulse(item.pulse)[0] for item in ann.spool.pending(999)]
    assert {len(pulse.box) for pulse in pulses} == {192}
    assert len({pulse.box for pulse in pulses}) == len(pulses)
    country.close()


def test_what_a_pulse_says_in_the_clear_is_what_counting_needs() -> None:
    assert Pulse.__struct_fields__ == (
        "v", "tid", "seq", "at_ms", "cum_ms", "delta_ms", "beacon", "prev", "box",
    )  # fmt: skip


def _session(ticket: bytes) -> bytes:
    session: bytes = msgspec.msgpack.decode(decode(Signed, ticket).body)[3]
    return session
