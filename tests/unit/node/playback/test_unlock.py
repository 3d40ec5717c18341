"""Protected titles as a player sees them: real gateway, library, fetcher, store and wallet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
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
from farcast.node.playback.gateway import Gateway
from farcast.node.playback.unlock import FILE_LIMIT_BYTES, RENEW_MS, Standing, Unlocker
from farcast.node.pulses.heartbeat import Heartbeat
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.wallet import Wallet
from farcast.protocol.codec import encode
from farcast.protocol.contentkey import LEASE_MS, KeyAnswer, KeyGrant, open_key_request
from farcast.protocol.errors import FarcastError, RefusedError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import TierName
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice, open_ticket
from farcast.tests.unit.node.reel import FaultyTier, film

TICKETS = Identity(b"\x05" * 32)
OFFICE = TicketOffice(TICKETS, b"secret" * 6)
NOON_MS = 20_700 * DAY_MS + DAY_MS // 2
KEY_ID, KEY = b"\xcd" * 16, b"content-key-16by"
RECHECK_S = 600


class Rig:
    """A viewer's box without sockets; ``answer`` is what the origin says: the key, or an error."""

    def __init__(self, home: Path) -> None:
        self.registry = CollectorRegistry()
        self.reel = film(sealed=(KEY_ID, KEY))
        self.store = DiskStore(home, 100_000_000, self.registry)
        self.cdn = FaultyTier(TierName.CDN, self.reel.blocks, delay_s=0.001)
        self.fetcher = Fetcher(self.store, [self.cdn], self.registry, ladder=Ladder(deadline_s=0.5))
        self.library = self.reel.library(self.store)
        self.spool = DiskSpool(home / "spool.db", self.registry)
        self.wallet = Wallet(home / "wallet.db")
        self.now_ms = NOON_MS
        self.answer: FarcastError | bytes = KEY
        self.until_ms = 0
        self.asked = 0
        self.players = 0
        self.gate: asyncio.Event | None = None
        self.standing = Standing(enrolled=True, pulses=True, origin="Acme", no_ticket="")
        heartbeat = Heartbeat(
            self.spool, self.wallet, self.registry,
            digest=lambda title: self.library.entry(title).cid.digest, served=self.fetcher.take_served,
            beacon=lambda: None, clock_ms=lambda: self.now_ms,
        )  # fmt: skip
        self.unlocker = self.unlocking(self.registry)
        self.gateway = Gateway(
            self.library, self.fetcher, self.store, heartbeat, self.registry, interval_s=5.0,
            clock=lambda: self.now_ms / 1_000, unlocker=self.unlocker,
        )  # fmt: skip
        self.router = Router(Hosts(["localhost"]))
        self.gateway.add_to(self.router)

    def unlocking(self, registry: CollectorRegistry) -> Unlocker:
        """Make an unlocker over this wallet."""
        return Unlocker(
            self.library, self.wallet, self.origin, lambda: self.standing, lambda: self.now_ms, registry,
            recheck_s=RECHECK_S,
        )  # fmt: skip

    async def origin(self, body: bytes, session: Identity) -> bytes:
        """Be the origin: check what is asked, and answer as the test says."""
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        request = open_key_request(body)
        ticket, _ = open_ticket(request.ticket, [TICKETS.key])
        assert ticket.session == session.key
        assert ticket.valid_at(self.now_ms)
        assert request.key_ids == [KEY_ID]
        if isinstance(self.answer, FarcastError):
            raise self.answer
        until_ms = self.until_ms or self.now_ms + LEASE_MS
        return encode(KeyAnswer(1, [KeyGrant(KEY_ID, self.answer, until_ms)]))

    def tickets(self) -> None:
        """Fill the wallet: today and 14 days ahead."""
        wanted = self.wallet.wanted(self.now_ms // DAY_MS)
        grants = [
            OFFICE.issue(sha256(key).digest()[:16], day, key, Holder(b"\1" * 16, 0)) for day, key in wanted
        ]
        self.wallet.accept(grants, [TICKETS.key])

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes, Answer]:
        """Ask for a file of the film as a player does."""

        async def read(limit: int) -> bytes:
            del limit
            return b""

        self.players += 1  # each request is another player's, so that none is paced
        player = {"host": "localhost", "user-agent": f"player {self.players}"}
        fields = {**player, **{name.replace("_", "-"): text for name, text in headers.items()}}
        exchange = Exchange.of(
            method, f"/watch/film/{path}", fields, peer="127.0.0.1", secure=False, reader=read
        )
        answer = await self.router.handle(exchange)
        if method == "HEAD" or isinstance(answer.body, bytes):
            return answer.status, answer.body if isinstance(answer.body, bytes) else b"", answer
        assert isinstance(answer.body, AsyncIterator)
        data = b"".join([chunk async for chunk in answer.body])
        assert len(data) == answer.length
        return answer.status, data, answer

    async def refused(self, path: str = "v0/seg-00003.m4s") -> tuple[int, str, str]:
        """Ask for a file and return status, reason and sentence of the refusal."""
        status, body, answer = await self.get(path)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = msgspec.json.decode(body)
        return status, problem["reason"], problem["detail"]

    def count(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def rig(home: Path, *, tickets: bool = True) -> AsyncGenerator[Rig]:
    made = Rig(home)
    if tickets:
        made.tickets()
    try:
        yield made
    finally:
        await made.gateway.close()
        await made.unlocker.close()
        await made.fetcher.close()
        made.wallet.close()
        made.spool.close()
        made.store.close()


async def test_every_file_comes_out_in_the_clear_and_the_store_has_none_of_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for path, data in r.reel.files.items():
            status, body, answer = await r.get(path)
            assert (status, body) == (200, data), path
            assert answer.headers["content-length"] == str(len(data))
        assert r.asked == 1
        on_disk = b"".join(p.read_bytes() for p in sorted((tmp_path / "blocks").rglob("*")) if p.is_file())
        segments = [data for path, data in r.reel.files.items() if path.endswith(".m4s")]
        assert len(on_disk) > sum(map(len, segments))
        for data in segments:
            assert not any(data[at : at + 32] in on_disk for at in range(0, len(data) - 32, 997))


async def test_ranges_lengths_and_conditions_are_those_of_the_clear_file(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        path = "v0/seg-00003.m4s"
        clear = r.reel.files[path]
        status, body, answer = await r.get(path, range="bytes=34990-")
        assert (status, body) == (206, clear[34_990:])
        assert answer.headers["content-range"] == f"bytes 34990-34999/{len(clear)}"
        assert (await r.get(path, range="bytes=0-0"))[:2] == (206, clear[:1])
        beyond = await r.get(path, range=f"bytes={len(clear)}-")
        assert (beyond[0], beyond[2].headers["content-range"]) == (416, f"bytes */{len(clear)}")
        head = await r.get(path, method="HEAD")
        assert head[2].headers["content-length"] == str(len(clear))
        assert (await r.get(path, if_none_match=answer.headers["etag"]))[0] == 304


async def test_without_a_ticket_a_sentence_says_what_to_do(tmp_path: Path) -> None:
    async with rig(tmp_path, tickets=False) as r:
        status, reason, sentence = await r.refused("master.m3u8")
        assert (status, reason) == (403, "no_ticket")
        assert "film needs a ticket" in sentence
        r.standing = r.standing._replace(enrolled=False)
        status, reason, sentence = await r.refused()
        assert (status, reason) == (403, "no_account")
        assert "`farcast join LINK`" in sentence
        assert await r.unlocker.locked("film") == sentence
        assert r.asked == 0
        assert r.count("farcast_node_locked_total", reason="no_ticket") == 1
        assert r.count("farcast_node_locked_total", reason="no_account") == 1


async def test_with_pulses_off_it_does_not_play(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.standing = r.standing._replace(pulses=False)
        status, reason, sentence = await r.refused()
        assert (status, reason) == (403, "pulses_off")
        assert "`farcast pulses on`" in sentence


async def test_a_revoked_account_stops_at_the_next_check_and_stays_stopped_offline(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert (await r.get("v0/seg-00000.m4s"))[0] == 200
        r.answer = RefusedError("this account has been revoked", status=403, reason="revoked")
        assert (await r.get("v0/seg-00001.m4s"))[0] == 200
        r.now_ms += RECHECK_S * 1_000
        assert (await r.get("v0/seg-00002.m4s"))[0] == 200  # the check runs beside it
        await asyncio.sleep(0.05)
        status, reason, sentence = await r.refused()
        assert (status, reason) == (403, "revoked")
        assert sentence == "film does not play: this account has been revoked"
        assert (await r.refused("v0/seg-00000.m4s"))[1] == "revoked"  # nor what was opened before
        r.answer = UnreachableError("nobody answers")
        again = r.unlocking(CollectorRegistry())
        await again.load()
        assert "cannot be asked now" in await again.locked("film")
        r.now_ms += 3_600_000
        assert (await r.refused())[1] == "no_key"
        r.now_ms += 3_600_000
        r.answer = KEY
        assert (await r.get("v0/seg-00000.m4s"))[0] == 200


async def test_without_tickets_a_revoked_account_is_told_so_at_once_though_nobody_can_be_asked(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        assert (await r.get("v0/seg-00000.m4s"))[0] == 200
        r.answer = UnreachableError("nobody answers")
        r.wallet.end(r.now_ms // DAY_MS)
        r.standing = r.standing._replace(revoked=r.wallet.ended)
        told = "film does not play: this account has been revoked; ask the origin why"
        assert await r.refused() == (403, "revoked", told)
        assert await r.refused("v0/seg-00000.m4s") == (403, "revoked", told), "nor what was opened before"


async def test_a_key_that_was_never_here_is_asked_for_again_when_somebody_answers(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.answer = UnreachableError("the origin does not answer")
        status, reason, sentence = await r.refused()
        assert (status, reason) == (503, "no_key")
        assert "the origin does not answer" in sentence
        assert (await r.refused())[1] == "no_key"
        assert r.asked == 1
        r.answer, r.now_ms = KEY, r.now_ms + 15_000
        assert (await r.get("v0/seg-00003.m4s"))[0] == 200
        assert r.count("farcast_node_content_keys_total", result="unanswered") == 1
        assert r.count("farcast_node_content_keys_total", result="granted") == 1


async def test_offline_it_plays_while_there_are_tickets_and_then_says_why_not(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert (await r.get("v0/seg-00000.m4s"))[0] == 200
        r.answer = UnreachableError("the network is gone")
        again = r.unlocking(CollectorRegistry())
        await again.load()
        for day in range(1, 14):
            r.now_ms = NOON_MS + day * DAY_MS
            assert await again.locked("film") == "", day
            assert (await r.get("v0/seg-00000.m4s"))[0] == 200
        r.now_ms = NOON_MS + 14 * DAY_MS
        status, reason, sentence = await r.refused()
        assert (status, reason) == (403, "lapsed")
        assert "connect this box to Acme once" in sentence
        r.now_ms = NOON_MS + 15 * DAY_MS
        status, reason, sentence = await r.refused()
        assert (status, reason) == (403, "no_ticket")
        assert "Acme has not been reached since the last ran out" in sentence


async def test_the_end_of_the_rights_window_ends_the_key(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.until_ms = NOON_MS + 3_600_000
        assert (await r.get("v0/seg-00000.m4s"))[0] == 200
        r.now_ms = r.until_ms
        r.answer = RefusedError("film could be watched until then", status=403, reason="window_over")
        assert (await r.refused())[1] == "window_over"


async def test_many_requests_at_once_ask_the_origin_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        gate = r.gate = asyncio.Event()

        async def let_go() -> None:
            await asyncio.sleep(0.1)
            gate.set()

        found = await asyncio.gather(*[r.get(f"v0/seg-0000{at}.m4s") for at in range(8)], let_go())
        assert [one[0] for one in found if one is not None] == [200] * 8
        assert r.asked == 1


async def test_a_wrong_key_is_no_film_and_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.answer = b"another-key-here"
        status, reason, _ = await r.refused()
        assert (status, reason) == (502, "bad_ciphertext")


async def test_kept_titles_have_fresh_keys_without_anybody_playing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.library.learn("film", r.fetcher.block)
        for _ in range(3):
            await r.unlocker.renew(["film", "unknown"])
            await asyncio.sleep(0.02)
        assert r.asked == 1
        r.now_ms += RENEW_MS + 1
        await r.unlocker.renew(["film"])
        await asyncio.sleep(0.02)
        assert r.asked == 2
        r.standing = r.standing._replace(pulses=False)
        r.now_ms += RENEW_MS + 1
        await r.unlocker.renew(["film"])
        assert r.asked == 2


async def test_the_list_knows_what_is_locked_without_asking(tmp_path: Path) -> None:
    async with rig(tmp_path, tickets=False) as r:
        manifest = await r.library.learn("film", r.fetcher.block)
        assert "needs a ticket" in r.unlocker.locks()(manifest)
        r.tickets()
        assert r.unlocker.locks()(manifest) == ""
        r.answer = RefusedError("film may be watched from tomorrow on", status=403, reason="not_yet")
        assert await r.unlocker.locked("film") == "film does not play: film may be watched from tomorrow on"
        assert r.unlocker.locks()(manifest) == await r.unlocker.locked("film")
        assert r.asked == 1


async def test_what_is_decrypted_is_remembered_within_bounds(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        manifest = await r.library.learn("film", r.fetcher.block)
        assert manifest.protection is not None
        path, reads = "v0/seg-00003.m4s", 0

        async def read() -> bytes:
            nonlocal reads
            reads += 1
            plan = await r.library.plan("film", path, r.fetcher.block)
            return b"".join([await r.fetcher.block(leaf.cid) for leaf in plan.leaves])

        for _ in range(5):
            assert await r.unlocker.clear(manifest, path, 35_008, read) == r.reel.files[path]
        assert reads == 1
        with pytest.raises(RefusedError, match="too large"):
            await r.unlocker.clear(manifest, "v0/seg-00004.m4s", FILE_LIMIT_BYTES + 1, read)
