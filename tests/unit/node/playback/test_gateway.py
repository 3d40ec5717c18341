"""The gateway as a player sees it: real router, library, fetcher, store, wallet and spool behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.ladder.fetch import Fetcher
from farcast.node.ladder.ladder import Ladder
from farcast.node.playback.gateway import TOLD_S, Gateway
from farcast.node.playback.headstart import HEAD_S
from farcast.node.pulses.heartbeat import Heartbeat
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.wallet import Wallet
from farcast.origin.pulses.inspection import Inspection
from farcast.origin.pulses.witness import NOT_MADE, SOUND, Sample, judge
from farcast.protocol.beacon import Beacon
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import open_manifest
from farcast.protocol.ports import TierName
from farcast.protocol.pulse import open_viewing, read_pulse
from farcast.protocol.ticket import DAY_MS, Holder, TicketGrant, TicketOffice
from farcast.tests.unit.node.reel import FaultyTier, film

TICKETS = Identity(b"\x05" * 32)
OFFICE = TicketOffice(TICKETS, b"secret" * 6)
NOON_MS = 20_700 * DAY_MS + DAY_MS // 2
EPOCH_MS = 1_790_000_000_000
MEDIA = "v0/seg-00003.m4s"


class Reply:
    """An answer read to its end, as a client has it."""

    def __init__(self, answer: Answer, body: bytes) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = body


class Rig:
    """One viewer's box without sockets; its clock is moved by hand where a test wants to."""

    def __init__(self, home: Path, head_s: float = HEAD_S) -> None:
        self.registry = CollectorRegistry()
        self.reel = film()
        self.store = DiskStore(home, 100_000_000, self.registry)
        self.cdn = FaultyTier(TierName.CDN, self.reel.blocks, delay_s=0.001)
        self.fetcher = Fetcher(self.store, [self.cdn], self.registry, ladder=Ladder(deadline_s=0.5))
        self.library = self.reel.library(self.store)
        self.spool = DiskSpool(home / "spool.db", self.registry)
        self.wallet = Wallet(home / "wallet.db")
        self.now = 100.0
        self.beacon: Beacon | None = None
        self.head = Answer(0)
        heartbeat = Heartbeat(
            self.spool, self.wallet, self.registry,
            digest=lambda title: self.library.entry(title).cid.digest,
            served=self.fetcher.take_served, beacon=lambda: self.beacon,
            clock_ms=lambda: NOON_MS + int(self.now * 1000),
        )  # fmt: skip
        self.heartbeat = heartbeat
        self.gateway = Gateway(
            self.library, self.fetcher, self.store, heartbeat, self.registry, interval_s=5.0,
            clock=lambda: self.now, head_s=head_s,
        )  # fmt: skip
        self.router = Router(Hosts(["localhost"]), token="t0ken")
        self.gateway.add_to(self.router)

    async def ask(
        self, target: str, *, method: str = "GET", body: bytes = b"", under: str = "t0ken", **headers: str
    ) -> Reply:
        """Make one request and read the answer to its end."""
        fields = {"host": "localhost", "user-agent": "test", **headers}
        fields = {name.replace("_", "-"): value for name, value in fields.items()}

        async def read(limit: int) -> bytes:
            assert len(body) <= limit
            return body

        exchange = Exchange.of(
            method, f"/{under}{target}", fields, peer="127.0.0.1", secure=False, reader=read
        )
        answer = await self.router.handle(exchange)
        self.head = answer
        if method == "HEAD" or not isinstance(answer.body, AsyncIterator):
            return Reply(answer, answer.body if isinstance(answer.body, bytes) else b"")
        data = b"".join([chunk async for chunk in answer.body])
        assert len(data) == answer.length
        return Reply(answer, data)

    async def watch(self, path: str, query: str = "", **headers: str) -> Reply:
        """Ask for a file of the film."""
        return await self.ask(f"/watch/film/{path}{query}", method="GET", body=b"", under="t0ken", **headers)

    async def event(self, state: str, sn: int, *, sid: str = "s1", cid: str = "film") -> Reply:
        """Post one player event."""
        line = f'cid="{cid}",e=ps,sid="{sid}",sn={sn},sta={state},ts={EPOCH_MS + int(self.now * 1000)},v=2\n'
        return await self.ask("/v1/cmcd", method="POST", body=line.encode())

    async def tickets(self) -> None:
        """Fill the wallet."""

        async def issue(wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
            return [
                OFFICE.issue(sha256(key).digest()[:16], day, key, Holder(b"\x01" * 16, 0))
                for day, key in wanted
            ]

        await self.heartbeat.renew(issue, [TICKETS.key])

    async def advance(self, seconds: float) -> None:
        """Let the clock run and the gateway's clockwork with it."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            await self.gateway.tick()


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = asyncio.get_running_loop().time() + 10
    while not holds():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


async def settled(r: Rig) -> None:
    """Let what is known in advance of the next segment arrive."""
    await until(lambda: r.library.planned("film", MEDIA) is not None)


@asynccontextmanager
async def rig(home: Path, head_s: float = HEAD_S) -> AsyncGenerator[Rig]:
    made = Rig(home, head_s)
    try:
        yield made
    finally:
        await made.gateway.close()
        await made.fetcher.close()
        made.wallet.close()
        made.spool.close()
        made.store.close()


async def test_every_file_of_a_title_comes_out_byte_for_byte(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for path, data in r.reel.files.items():
            if path.endswith(("00.m4s", ".m3u8", ".mp4")):
                reply = await r.watch(path)
                assert reply.status == 200
                assert reply.body == data
        assert (await r.watch("master.m3u8")).headers["content-type"] == "application/vnd.apple.mpegurl"
        assert r.cdn.titles == {"film"}


async def test_ranges_heads_and_conditions_follow_rfc_9110(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        data = r.reel.files[MEDIA]
        size = len(data)
        for wanted, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=19990-20010", 19_990, 20_010),
            ("bytes=30000-", 30_000, size - 1),
            ("bytes=-5", size - 5, size - 1),
            (f"bytes=5-{size + 99}", 5, size - 1),
        ):
            reply = await r.watch(MEDIA, range=wanted)
            assert reply.status == 206
            assert reply.body == data[first : last + 1]
            assert reply.headers["content-range"] == f"bytes {first}-{last}/{size}"
        beyond = await r.watch(MEDIA, range=f"bytes={size}-")
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
        for odd in ("bytes=9-1", "lines=1-2", "bytes=0-1,4-5"):
            assert (await r.watch(MEDIA, range=odd)).status == 200
        head = await r.ask(f"/watch/film/{MEDIA}", method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(size), b"")
        etag = head.headers["etag"]
        assert (await r.watch(MEDIA, if_none_match=f'"x", W/{etag}')).status == 304
        assert (await r.watch(MEDIA, range="bytes=0-1", if_range='"other"')).status == 200
        assert (await r.watch(MEDIA, range="bytes=0-1", if_range=etag)).status == 206


async def test_unknown_titles_files_tokens_and_sites_get_a_clear_no(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert (await r.ask("/watch/nothing/master.m3u8")).status == 404
        assert (await r.watch("v0/none.m4s")).status == 404
        assert (await r.watch("v0")).status == 404
        assert (await r.ask("/watch/film/master.m3u8", under="wrong")).status == 404
        assert (await r.watch("master.m3u8", sec_fetch_site="cross-site")).status == 403
        assert (await r.watch("master.m3u8", host="evil.example")).status == 421


async def test_a_block_no_tier_brings_is_a_504_before_the_headers(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.watch("v0/index.m3u8")
        r.cdn.fault = "refuse"
        reply = await r.watch(MEDIA)
        assert reply.status == 504
        assert b"no_tier" in reply.body
        assert reply.headers["retry-after"] == "2"
        assert (await r.watch("v0/index.m3u8")).status == 200, "what the store holds still plays"


@pytest.mark.parametrize("wanted", ["", "bytes=19990-20010"])
async def test_a_segment_that_is_late_has_its_head_first_and_then_the_same_bytes(
    tmp_path: Path, wanted: str
) -> None:
    async with rig(tmp_path, head_s=0.02) as r:
        await r.watch("v0/seg-00002.m4s")
        await settled(r)
        r.cdn.delay_s = 0.2
        fields = {"range": wanted} if wanted else {}
        asking = asyncio.ensure_future(r.watch(MEDIA, **fields))
        r.head = Answer(0)
        await until(lambda: bool(r.head.status))
        assert not asking.done(), "the head is here and the bytes are not"
        head, late = r.head, await asking
        r.cdn.delay_s = 0.001
        known = await r.watch(MEDIA, **fields)
        assert (late.status, late.body) == (known.status, known.body) == (head.status, known.body)
        assert head.headers == known.headers
        assert r.gateway.trail("film") is not None


async def test_a_segment_that_never_comes_is_told_of_and_cut_short_and_a_playlist_is_a_504(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, head_s=0.02) as r:
        await r.watch("v0/seg-00002.m4s")
        await settled(r)
        r.cdn.fault = "hang"
        asking = asyncio.ensure_future(r.watch(MEDIA))
        r.head = Answer(0)
        await until(lambda: bool(r.head.status))
        assert not r.gateway.trouble("film")
        r.now += TOLD_S
        assert r.gateway.trouble("film").startswith("No tier delivers the next part now")
        with pytest.raises(RefusedError) as refused:
            await asking
        assert (refused.value.status, refused.value.reason) == (504, "no_tier")
        assert r.gateway.trouble("film"), "the page asks after it has failed"
        assert (await r.watch("a0/index.m3u8")).status == 504
        r.cdn.fault = ""
        await asyncio.sleep(0.6)  # the ladder asks again after a back-off
        assert (await r.watch(MEDIA)).body == r.reel.files[MEDIA]
        assert not r.gateway.trouble("film")


async def test_a_player_that_leaves_before_the_body_waits_for_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, head_s=0.02) as r:
        await r.watch("v0/seg-00002.m4s")
        await settled(r)
        r.cdn.fault = "hang"
        exchange = Exchange.of(
            "GET", f"/t0ken/watch/film/{MEDIA}", {"host": "localhost", "user-agent": "test"},
            peer="127.0.0.1", secure=False, reader=lambda _: asyncio.sleep(0, b""),
        )  # fmt: skip
        answer = await r.router.handle(exchange)
        assert answer.status == 200
        r.now += TOLD_S
        assert not r.gateway.trouble("film")


async def test_a_block_missing_in_the_middle_ends_the_answer_abnormally(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        second = r.reel.cids(MEDIA)[1]
        del r.reel.blocks[second]
        exchange = Exchange.of(
            "GET", f"/t0ken/watch/film/{MEDIA}", {"host": "localhost"}, peer="", secure=False,
            reader=lambda _: asyncio.sleep(0, b""),
        )  # fmt: skip
        answer = await r.router.handle(exchange)
        assert isinstance(answer.body, AsyncIterator)
        assert len(await anext(answer.body)) < len(r.reel.files[MEDIA])
        with pytest.raises(UnreachableError):
            await anext(answer.body)
        assert r.gateway.sessions()[0]["viewed_ms"] == 0


async def test_a_block_damaged_on_disk_is_fetched_again_and_never_served(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.watch(MEDIA)
        block = r.reel.cids(MEDIA)[0]
        place = r.store.path(block)
        assert place is not None
        damage(Path(place[0]))
        asked = len(r.cdn.asked)
        assert (await r.watch(MEDIA)).body == r.reel.files[MEDIA]
        assert r.cdn.asked[asked:] == [block]


async def test_the_next_object_a_player_names_is_brought_ahead(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.watch(MEDIA, "?CMCD=bl%3D4000%2Cnor%3D%22seg-00004.m4s%22%2Csid%3D%22s1%22")
        for _ in range(200):
            if all(r.store.has(cid) for cid in r.reel.cids("v0/seg-00004.m4s")):
                break
            await asyncio.sleep(0.01)
        assert all(r.store.has(cid) for cid in r.reel.cids("v0/seg-00004.m4s"))
        reply = await r.watch(MEDIA, "?CMCD=nor%3D%22..%2F..%2F..%2Fetc%2Fpasswd%22")
        assert reply.status == 200


async def test_unreadable_cmcd_never_stops_a_film_but_is_counted(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert (await r.watch(MEDIA, "?CMCD=%2C%2C%3D%3D")).status == 200
        assert (await r.ask("/v1/cmcd", method="POST", body=b"\xff\xfe")).status == 400
        assert (await r.event("p", 0, sid="unheard", cid="no-such-film")).status == 204
        sample = r.registry.get_sample_value
        assert sample("farcast_node_player_reports_unread_total", {"reason": "malformed"}) == 2
        assert sample("farcast_node_player_events_total", {"result": "unknown"}) == 1


async def test_a_reporting_player_is_counted_by_its_states_and_pulsed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.tickets()
        query = "?CMCD=sid%3D%22s1%22%2Cbl%3D2000"
        await r.event("s", 0)
        await r.watch("v0/seg-00000.m4s", query)
        await r.event("p", 1)
        for number in range(1, 10):
            await r.watch(f"v0/seg-{number:05d}.m4s", query)
            await r.advance(2)
        await r.event("a", 2)
        await r.advance(20)
        await r.event("e", 3)
        pulses = [read_pulse(item.pulse)[0] for item in r.spool.pending(99)]
        assert sum(pulse.delta_ms for pulse in pulses) == 18_000
        assert 4 <= len(pulses) <= 6
        viewing = open_viewing(pulses[-1], OFFICE.key(pulses[-1].tid))
        assert viewing.manifest == r.library.entry("film").cid.digest
        assert viewing.position_ms == 18_000
        assert viewing.witness == bytes(16)
        served = [one for pulse in pulses for one in open_viewing(pulse, OFFICE.key(pulse.tid)).served]
        assert {one.tier for one in served} == {TierName.CDN}
        assert sum(one.kbytes for one in served) >= 10 * 35
        (session,) = r.gateway.sessions()
        assert session["reports"] is True
        assert session["viewed_ms"] == 18_000


async def test_the_origin_finds_the_witness_of_every_pulse_sound_until_the_block_has_left(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        await r.tickets()
        r.beacon = Beacon(1, 7, b"\x0b" * 32, NOON_MS)
        manifest_cid = r.library.entry("film").cid
        manifest = open_manifest(r.reel.blocks[manifest_cid])
        inspection = Inspection(
            OFFICE, Sample(b"secret"), {7: r.beacon.value}.get, lambda _: manifest, r.reel.blocks.get,
            CollectorRegistry(),
        )  # fmt: skip
        query = "?CMCD=sid%3D%22s1%22%2Cbl%3D2000"
        await r.event("p", 1)
        for number in range(18):
            await r.watch(f"v0/seg-{number:05d}.m4s", query)
            await r.watch(f"a0/seg-{number:05d}.m4s", query)
            await r.advance(1)
        await r.event("p", 2)
        newer = Entry(1, "supersede", "film", Cid.of(RAW, b"another version").encode(), 1)
        r.reel.catalog.append(newer)
        await r.advance(6)
        await r.event("p", 3)
        r.reel.catalog.append(msgspec.structs.replace(newer, manifest=manifest_cid.encode()))
        await r.advance(2)
        for cid in list(r.reel.blocks):
            r.store.drop(cid)
        await r.event("e", 4)
        pulses = [read_pulse(item.pulse)[0] for item in r.spool.pending(99)]
        found = [
            judge(
                pulse, open_viewing(pulse, OFFICE.key(pulse.tid)), {7: r.beacon.value}.get, inspection.blocks
            )
            for pulse in pulses
            if pulse.delta_ms
        ]
        assert set(found[:-2]) == {SOUND}
        assert len(found) >= 4
        assert found[-2:] == [NOT_MADE] * 2, "of another version, and of a block that is gone, there is none"


async def test_a_silent_player_is_paced_to_30_seconds_and_counted_by_delivery(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.tickets()
        for number in range(15):
            await r.watch(f"v0/seg-{number:05d}.m4s")
            await r.watch(f"a0/seg-{number:05d}.m4s")
        assert r.gateway.sessions()[0]["lead_ms"] == 30_000
        await r.gateway.tick()
        await r.watch("v0/seg-00015.m4s")
        held = asyncio.ensure_future(r.watch("v0/seg-00016.m4s"))
        await asyncio.sleep(0.6)
        assert not held.done(), "32 s are out, the next waits until it is 30"
        r.now += 3.0
        assert (await asyncio.wait_for(held, 2)).status == 200
        await r.watch("a0/seg-00015.m4s")
        await r.watch("a0/seg-00016.m4s")
        await r.advance(60)
        pulses = [read_pulse(item.pulse)[0] for item in r.spool.pending(99)]
        assert sum(pulse.delta_ms for pulse in pulses) == 34_000


async def test_a_player_that_names_itself_late_keeps_what_it_got(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for number in range(5):
            await r.watch(f"v0/seg-{number:05d}.m4s")
        await r.event("p", 0, sid="late")
        await r.advance(3)
        await r.event("a", 1, sid="late")
        (session,) = r.gateway.sessions()
        assert session["viewed_ms"] == 3_000


async def test_the_trail_tells_which_tier_each_segment_came_from(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert r.gateway.trail("film") is None
        for number in range(3):
            await r.watch(f"v0/seg-{number:05d}.m4s", "?CMCD=sid%3D%22s1%22")
        found = r.gateway.trail("film", "s1")
        assert found is not None
        steps = found.steps()
        assert [(step.start_ms, step.tier) for step in steps] == [(0, "cdn"), (2_000, "cdn"), (4_000, "cdn")]
        assert all(0 < step.took_ms < 5_000 for step in steps)
        assert found.blocks == 6
        assert r.gateway.trail("film") is found, "who names nobody means the newest"
        assert r.gateway.trail("other") is None


async def test_two_titles_in_one_player_are_a_switch(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        other = film("other", seed=8)
        r.reel.blocks |= other.blocks
        r.reel.catalog.append(next(iter(other.catalog.titles().values())))
        await r.tickets()
        query = "?CMCD=sid%3D%22s1%22"
        await r.watch("v0/seg-00000.m4s", query)
        await r.event("p", 0)
        await r.advance(2)
        await r.event("p", 1)
        await r.ask(f"/watch/other/v0/seg-00000.m4s{query}")
        await r.advance(1)
        pulses = [read_pulse(item.pulse)[0] for item in r.spool.pending(99)]
        states = [open_viewing(pulse, OFFICE.key(pulse.tid)).state for pulse in pulses]
        assert states == [1, 2, 4]
        last = open_viewing(pulses[-1], OFFICE.key(pulses[-1].tid))
        assert last.manifest == r.library.entry("other").cid.digest
