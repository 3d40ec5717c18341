"""What two real relays learn from the pulses they carry: every file of their homes is read, and their logs.

The second relay has only what the first gave it while the origin was out of reach.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.demo.troupe import free_port
from farcast.node.pulses.heartbeat import Evidence, Heartbeat
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.wallet import Wallet
from farcast.origin.keys import Keys
from farcast.protocol.batch import PulsePost, read_parcel
from farcast.protocol.beacon import Beacon
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode, encode
from farcast.protocol.directory import open_directory
from farcast.protocol.identity import Signed
from farcast.protocol.pulse import ACTIVE, START, Served, read_pulse
from farcast.protocol.ticket import DAY_MS, Holder, Ticket, TicketGrant, TicketOffice
from farcast.protocol.viewing import PulseDue
from farcast.tests.unit.node.pulses.disks import disk_of, rows_of, shared, values, windows
from farcast.tests.wire.street import VIEWER, Box, Street, ask, until

MANIFEST = Cid.of(RAW, b"the manifest of a film")
BLOCK = b"a block of the film" * 99
ACCOUNTS = {name: sha256(b"account of " + name.encode()).digest()[:16] for name in ("ann", "bob")}
PULSES = 20
"""Of each viewer and day."""


@pytest.fixture
def street(tmp_path: Path) -> Generator[Street]:
    street = Street(tmp_path)
    yield street
    street.close()


def relay(street: Street, name: str) -> Box:
    """Let a relay join and run; it sends what it has every second."""
    link = street.must("origin", "invite", "--relay", "--home", street.home("origin"))["link"]
    port = free_port()
    own = {
        "FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}",
        "FARCAST_BATCH_INTERVAL_S": "1",
    }  # fmt: skip
    ran = street.run("relay", "join", link, "--home", street.home(name), settings=own)
    assert ran.code == 0, ran
    return street.start(name, "relay", "run", settings=own)


async def watch(folder: Path, account: bytes, days: range, keys: Keys) -> tuple[list[PulsePost], list[bytes]]:
    """Watch on some days as a viewer's node does; returns posts by day, and what only the viewer knows."""
    now_ms = 0
    spool, wallet = DiskSpool(folder / "s.db", CollectorRegistry()), Wallet(folder / "w.db")
    beacon = Beacon(1, days.start * 24, sha256(b"beacon").digest(), days.start * DAY_MS)
    heartbeat = Heartbeat(
        spool, wallet, CollectorRegistry(), digest=lambda _: MANIFEST.digest,
        served=lambda _: [Served(1, b"", 1_000)], beacon=lambda: beacon, clock_ms=lambda: now_ms,
    )  # fmt: skip
    office = TicketOffice(keys.ticket, keys.ticket_secret)

    async def issue(wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        return [
            office.issue(sha256(account + key).digest()[:16], day, key, Holder(account, 0))
            for day, key in wanted
        ]

    now_ms = days.start * DAY_MS
    await heartbeat.renew(issue, list(keys.keyring.ticket))
    for day in days:
        for minute in range(PULSES):
            now_ms = day * DAY_MS + minute * 60_000
            due = PulseDue(ACTIVE if minute else START, "film", 60_000 if minute else 0, minute * 60_000, 0.0)
            assert await heartbeat.beat(due, Evidence(1, BLOCK))
    found: dict[bytes, list[bytes]] = {}
    for item in spool.pending(999):
        found.setdefault(item.ticket, []).append(item.pulse)
    with closing(sqlite3.connect(folder / "w.db")) as conn:
        secrets = [data for row in conn.execute("SELECT seed, key FROM day") for data in row]
    spool.close()
    wallet.close()
    return [PulsePost(1, [ticket], pulses) for ticket, pulses in found.items()], secrets


def given(box: Box) -> list[bytes]:
    """Return the pulses in the batches of other relays that a relay keeps."""
    with closing(sqlite3.connect(f"file:{box.home}/spool.db?mode=ro", uri=True)) as conn:
        found = [data for (data,) in conn.execute("SELECT data FROM carried")]
    return [pulse for data in found for pulse in read_parcel(data)[1]]


@pytest.fixture
def pair(street: Street) -> tuple[Keys, Box, Box]:
    """Bring up two relays that know each other, of an origin that is out of reach by now."""
    home, port = street.home("origin"), free_port()
    street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", home)
    settings = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    origin = street.start("origin", "origin", "run", settings=settings)
    north, south = relay(street, "north"), relay(street, "south")
    keys = Keys(home)

    def known(box: Box) -> int:
        answer = ask(f"127.0.0.1:{box.port}", "GET", "/v1/relays")
        return len(open_directory(answer.body, keys.catalog.key)[1]) if answer.status == 200 else 0

    until(lambda: known(north) == known(south) == 2, 30)
    origin.stop()
    return keys, north, south


def look_for_likeness(lying: dict[str, list[list[bytes]]]) -> None:
    """Compare two days of each viewer: tickets and pulses as they came."""
    own = encode(read_pulse(lying["ann"][0][1])[0].beacon)
    for name, (first, second) in lying.items():
        [other] = [one for one in lying if one != name]
        everybodys = windows((part for day in lying[other] for part in day), own)
        assert windows(first, own) & windows(second, own) - everybodys == set()
        fields = [{value for part in day for value in values(part)} for day in (first, second)]
        assert fields[0].isdisjoint(fields[1]), "no field of eight bytes or more comes twice"


@pytest.mark.timeout(240)
def test_two_relays_whole_disks_tell_neither_content_nor_account_nor_link_two_days(
    street: Street, pair: tuple[Keys, Box, Box]
) -> None:
    keys, north, south = pair
    today = time.time_ns() // 1_000_000 // DAY_MS
    told: dict[str, list[PulsePost]] = {}
    secrets = [MANIFEST.digest, str(MANIFEST).encode(), BLOCK[:32], *ACCOUNTS.values(), VIEWER.encode()]
    for name, account in ACCOUNTS.items():
        folder = street.folder / name
        folder.mkdir()
        told[name], own = asyncio.run(watch(folder, account, range(today - 2, today), keys))
        secrets += own
    for post in [post for both in zip(*told.values(), strict=True) for post in both]:
        answer = ask(f"127.0.0.1:{north.port}", "POST", "/v1/pulses", body=encode(post))
        assert answer.status == 202, answer
    until(lambda: len(given(south)) == 4 * PULSES, 40)
    assert north.api("/api/status")["pulses_waiting"] == 4 * PULSES
    for box in (north, south):
        box.stop()
    lying = {name: [[*post.tickets, *post.pulses] for post in posts] for name, posts in told.items()}
    parts = [part for days in lying.values() for day in days for part in day]
    assert sorted(given(south)) == sorted(
        part for days in told.values() for day in days for part in day.pulses
    )
    look_for_likeness(lying)
    for box in (north, south):
        disk = disk_of(box.home) + box.log.read_bytes() + box.out.read_bytes()
        there = sum(part in disk for part in parts)
        assert there > len(parts) / 2, "where they lie is looked through; some are cut by the ends of pages"
        assert not [needle for needle in secrets if needle in disk], box.home.name
    rows = rows_of(north.home)
    for first, second in told.values():
        tids = [decode(Ticket, decode(Signed, day.tickets[0]).body).tid for day in (first, second)]
        assert shared(rows, *tids) == set()
