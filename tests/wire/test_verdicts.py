"""Over real sockets: a node learns what of its viewing counts and why not, and when its account ended."""

from __future__ import annotations

import shutil
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.pulses.acks import Acks
from farcast.node.pulses.batcher import Batcher
from farcast.node.pulses.courier import Courier
from farcast.node.pulses.heartbeat import Evidence, Heartbeat
from farcast.node.pulses.history import History
from farcast.node.pulses.sealdesk import SealDesk
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.verdicts import ASK_FIRST_MS, CLOSED_MS, Verdicts, Way
from farcast.node.pulses.wallet import Wallet
from farcast.origin.keys import init
from farcast.protocol.batch import open_seal
from farcast.protocol.codec import Message, decode, encode
from farcast.protocol.directory import Endpoint
from farcast.protocol.enrol import DeviceRequest, TicketRequest, TicketWish, open_ticket_answer
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Reply, Source, TierName
from farcast.protocol.pulse import ACTIVE, START
from farcast.protocol.request import authorization, read_challenge
from farcast.protocol.ticket import DAY_MS, TicketGrant
from farcast.protocol.viewing import PulseDue
from farcast.tests.unit.origin.frontdesk import DEVICE, Origin
from farcast.tests.vectors.make_messages import MIXED_KEY, ORDER, SMALL_ORDER

MINUTE_MS = 60_000
PRIME = 2**255 - 19


class Node:
    """What of a viewer's node has to do with pulses; only its dialler reaches the origin."""

    def __init__(self, folder: Path, origin: Origin, port: int) -> None:
        self.origin = origin
        self.registry = CollectorRegistry()
        self.source = Source(TierName.RELAY, "origin", f"127.0.0.1:{port}", origin.keys.box.key)
        self.dialer = HttpDialer(allow_private=True)
        self.spool = DiskSpool(folder / "spool.db", self.registry)
        self.wallet = Wallet(folder / "wallet.db")
        self.keyring: Keyring = origin.keys.keyring
        self.heartbeat = Heartbeat(
            self.spool, self.wallet, self.registry, digest=lambda _: b"\7" * 32, served=lambda _: [],
            beacon=lambda: None, clock_ms=self.clock_ms,
        )  # fmt: skip
        self.acks = Acks(self.spool, lambda: self.keyring, self.registry)
        self.acks.revoked = self.wallet.end_from
        batcher = Batcher(
            self.spool, DEVICE, self.dialer, lambda: [self.source], self.acks, self.clock_ms, self.registry
        )
        self.courier = Courier(
            self.spool, self.dialer, self.acks, list, lambda: [self.source], batcher, self.clock_ms,
            self.registry,
        )  # fmt: skip
        self.verdicts = Verdicts(
            self.spool, self.ways, lambda: self.keyring, self.clock_ms, self.registry
        )  # fmt: skip
        self.history = History(self.spool, self.wallet)
        self.relays: list[Source] = []

    def ways(self) -> list[Way]:
        """Return who may be asked: the origin, unless it is out of reach, and relays."""
        found = [Way(self.dialer, self.source, origin=True)] if self.courier.reachable else []
        return found + [Way(self.dialer, source, origin=False) for source in self.relays]

    def clock_ms(self) -> int:
        """Return the time, which is the origin's."""
        return self.origin.now_ms

    async def signed(self, path: str, message: Message) -> Reply:
        """Post as the enrolled device."""
        return await self.dialer.signed_request(self.source, "POST", path, encode(message), DEVICE)

    async def issue(self, wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        """Ask the origin for tickets."""
        reply = await self.signed("/v1/tickets", TicketRequest(1, [TicketWish(*one) for one in wanted]))
        assert reply.status == 200, reply
        return open_ticket_answer(reply.body).grants

    async def watch(self, minutes: int, *, state: int = ACTIVE) -> list[bool]:
        """Let minutes pass, with a pulse at the end of each."""
        signed = list[bool]()
        for _ in range(minutes):
            self.origin.now_ms += MINUTE_MS
            delta_ms = 0 if state == START else MINUTE_MS
            signed.append(
                await self.heartbeat.beat(PulseDue(state, "film", delta_ms, 0, 0.0), Evidence(0, None))
            )
        return signed

    def results(self, result: str) -> float:
        """Return how many questions about seals ended so."""
        return self.registry.get_sample_value("farcast_node_seals_total", {"result": result}) or 0.0

    async def close(self) -> None:
        """Let go of files and connections."""
        await self.dialer.close()
        self.wallet.close()
        self.spool.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", time.time())
    return home


async def healthy(exchange: Exchange) -> Answer:
    """Say so, as every box does."""
    del exchange
    return Answer.json({"ok": True})


@asynccontextmanager
async def enrolled(template: Path, folder: Path) -> AsyncGenerator[Node]:
    """Run an origin, and enrol a node that has its tickets."""
    shutil.copytree(template, folder / "origin")
    origin = Origin(folder / "origin")
    origin.now_ms = origin.now_ms // DAY_MS * DAY_MS + DAY_MS // 2  # no test ends on another day
    origin.router.route("GET", "/healthz", healthy)
    metrics = HttpMetrics(CollectorRegistry())
    async with Listener(
        origin.router, lambda _: None, origin.keys.box, metrics, host="127.0.0.1", port=0
    ) as listener:
        node = Node(folder, origin, listener.port)
        try:
            token = origin.accounts.add("alice", origin.now_ms)
            assert (await node.signed("/v1/devices", DeviceRequest(1, token, DEVICE.key))).status == 200
            assert await node.heartbeat.renew(node.issue, list(node.keyring.ticket)) == 15
            yield node
        finally:
            await node.close()
            origin.close()


async def test_a_node_learns_what_of_its_viewing_counts_and_why_the_rest_does_not(
    template: Path, tmp_path: Path
) -> None:
    async with enrolled(template, tmp_path) as node:
        origin = node.origin
        await node.watch(1, state=START)
        await node.watch(3)
        await node.courier.errand()
        assert node.courier.reachable
        await node.verdicts.errand()
        assert node.results("none_yet") + node.results("news") == 0, "nobody asks about what is not over"
        (item,) = {one.tid for one in node.spool.sent(0, 99)}
        bare = await node.dialer.request(node.source, "GET", f"/v1/seals/{item.hex()}")
        assert bare.status == 404
        origin.now_ms += 6 * MINUTE_MS  # a gap: what the next pulse claims has no start
        await node.watch(1)
        await node.courier.errand()
        origin.now_ms += CLOSED_MS
        await node.verdicts.errand()
        await node.verdicts.errand()
        assert node.results("news") == 1, "of what came before the gap; asked once for ten minutes"
        assert node.results("none_yet") == 0
        first_ms = origin.now_ms
        await origin.service.seal()
        origin.now_ms += ASK_FIRST_MS
        await node.verdicts.errand()
        assert node.results("news") == 2
        told = node.history.read(origin.now_ms, {})
        assert [(one["viewed_ms"], one["not_counted"]) for one in told] == [
            (60_000, ["gap"]), (60_000, []), (60_000, []), (60_000, []), (0, []),
        ]  # fmt: skip
        assert [one["judged_ms"] for one in told] == [origin.now_ms, *[first_ms] * 4]
        sessions = [
            (one["viewed_ms"], one["counted_ms"], one["codes"])
            for one in node.history.sessions(origin.now_ms)
        ]
        assert sessions == [(60_000, 0, ["gap"]), (180_000, 180_000, [])]
        origin.now_ms += 6 * 3_600_000
        await node.verdicts.errand()
        assert node.results("news") == 2, "what is judged is asked about no more"


async def test_seals_over_http_are_the_origins_signed_word_and_nobody_elses(
    template: Path, tmp_path: Path
) -> None:
    async with enrolled(template, tmp_path) as node:
        origin = node.origin
        await node.watch(1, state=START)
        await node.watch(2)
        await node.courier.errand()
        origin.now_ms += CLOSED_MS
        await origin.service.seal()
        (tid,) = {one.tid for one in node.spool.sent(0, 99)}
        reply = await node.dialer.request(node.source, "GET", f"/v1/seals/{tid.hex()}")
        assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
        records = [open_seal(data, list(node.keyring.intake)) for data in decode(list[bytes], reply.body)]
        assert [(one.tid, one.first, one.last, one.counted_ms) for one in records] == [(tid, 1, 3, 120_000)]
        for wrong in ("zz" * 16, tid.hex()[:30], tid.hex().upper(), "00" * 17):
            bad = await node.dialer.request(node.source, "GET", f"/v1/seals/{wrong}")
            assert bad.status == 400, wrong
        assert (await node.dialer.request(node.source, "GET", f"/v1/seals/{'00' * 16}")).status == 404
        true, stranger = node.keyring, Identity(b"\x77" * 32).key
        node.keyring = Keyring(1, "x", true.box, true.catalog, true.ticket, [stranger], [], [], [], [])
        await node.verdicts.errand()
        assert node.results("bad_signature") == 1
        assert {one["judged_ms"] for one in node.history.read(origin.now_ms, {})} == {None}
        node.keyring = true
        origin.now_ms += ASK_FIRST_MS
        await node.verdicts.errand()
        assert {one["judged_ms"] for one in node.history.read(origin.now_ms, {})} == {origin.now_ms}


async def test_a_node_out_of_the_origins_reach_learns_them_from_a_relay_that_carried_its_pulses(
    template: Path, tmp_path: Path
) -> None:
    async with enrolled(template, tmp_path) as node, HttpDialer(allow_private=True) as dialer:
        origin, registry = node.origin, CollectorRegistry()
        (tmp_path / "relay").mkdir()
        spool = DiskSpool(tmp_path / "relay" / "spool.db", registry)
        upstream = [node.source]
        desk = SealDesk(spool, dialer, lambda: upstream, node.clock_ms, registry)
        router, box = Router(Hosts()), Identity(b"\x66" * 32)
        desk.add_to(router)
        async with Listener(
            router, lambda _: None, box, HttpMetrics(registry), host="127.0.0.1", port=0
        ) as listener:
            relay = Source(TierName.RELAY, "relay", f"127.0.0.1:{listener.port}", box.key)
            await node.watch(1, state=START)
            await node.watch(2)
            await node.courier.errand()
            (tid,) = {one.tid for one in node.spool.sent(0, 99)}
            origin.now_ms += CLOSED_MS
            await origin.service.seal()
            node.courier.reachable, node.relays = False, [relay]
            await node.verdicts.errand()
            assert node.results("none_yet") == 1, "a relay tells nothing of tickets it never carried"
            for ack in node.spool.acks([tid]):
                spool.settle(ack)
            upstream.clear()
            origin.now_ms += ASK_FIRST_MS
            await node.verdicts.errand()
            assert node.results("refused") == 1, "nor anything while it cannot ask"
            upstream.append(node.source)
            origin.now_ms += 2 * ASK_FIRST_MS
            await node.verdicts.errand()
            assert node.results("news") == 1
            ((session,), asked) = (
                node.history.sessions(origin.now_ms),
                registry.get_sample_value("farcast_node_seals_asked_total", {"result": "news"}),
            )
            assert (session["counted_ms"], asked) == (120_000, 1)
            again = await node.dialer.request(relay, "GET", f"/v1/seals/{tid.hex()}")
            assert again.status == 200
            asked = registry.get_sample_value("farcast_node_seals_asked_total", {"result": "news"})
            assert asked == 1, "what was asked a moment ago is not asked again"
        spool.close()


async def test_a_revocation_stops_the_nodes_tickets_with_the_next_ack_and_not_what_was_before(
    template: Path, tmp_path: Path
) -> None:
    async with enrolled(template, tmp_path) as node:
        origin = node.origin
        await node.watch(1, state=START)
        await node.watch(2)
        origin.now_ms += 1_000
        origin.accounts.revoke("alice", origin.now_ms)
        assert await node.watch(2) == [True, True], "it does not know yet"
        await node.courier.errand()
        told = node.history.read(origin.now_ms, {})
        assert [(one["state"], one["reason"]) for one in told] == [
            ("refused", "revoked"), ("refused", "revoked"), ("acked", ""), ("acked", ""), ("acked", ""),
        ]  # fmt: skip
        assert node.wallet.ended
        assert await node.watch(1) == [False]
        assert node.wallet.holding(origin.today).days == ()
        refused = await node.signed("/v1/tickets", TicketRequest(1, [TicketWish(origin.today, DEVICE.key)]))
        assert (refused.status, b"revoked" in refused.body) == (403, True)
        refusals = {"reason": "revoked"}
        assert origin.registry.get_sample_value("farcast_origin_tickets_refused_total", refusals) == 1
        origin.now_ms += CLOSED_MS
        await origin.service.seal()
        await node.courier.errand()
        await node.verdicts.errand()
        (session,) = node.history.sessions(origin.now_ms)
        assert (session["counted_ms"], session["codes"]) == (120_000, [])


BAD_SESSIONS = [
    *SMALL_ORDER,
    MIXED_KEY,
    *((PRIME + more).to_bytes(32, "little") for more in (0, 1, 3, 18)),
    b"\xff" * 32,
]


async def test_a_session_key_that_nobody_can_hold_gets_no_ticket(template: Path, tmp_path: Path) -> None:
    """A point of small order signs everything for everybody; the others are no canonical keys."""
    async with enrolled(template, tmp_path) as node:
        registry, fresh = node.origin.registry, Identity(b"\x31" * 32).key
        for count, key in enumerate(BAD_SESSIONS, 1):
            request = TicketRequest(1, [TicketWish(node.origin.today, one) for one in (fresh, key)])
            refused = await node.signed("/v1/tickets", request)
            assert (refused.status, b'"bad_session"' in refused.body) == (400, True), refused
            reason = {"reason": "bad_session"}
            assert registry.get_sample_value("farcast_origin_tickets_refused_total", reason) == count
        assert registry.get_sample_value("farcast_origin_tickets_issued_total") == 15, "none of it is issued"
        assert (await node.issue([(node.origin.today, fresh)]))[0].ticket


def unsound(proof: str, how: str) -> str:
    """Return a proof with the group's order added to S, or by a key of small order that signs everything."""
    scheme, _, text = proof.partition(" ")
    signed = decode(Signed, urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    body, sig = signed.body, signed.sig
    if how == "high S":
        sig = sig[:32] + (int.from_bytes(sig[32:], "little") + ORDER).to_bytes(32, "little")
    elif how == "small order":
        body = body.replace(DEVICE.key, SMALL_ORDER[0])
        sig = SMALL_ORDER[0] + bytes(32)
    return f"{scheme} {urlsafe_b64encode(encode(Signed(body, sig))).rstrip(b'=').decode()}"


async def test_a_request_whose_signature_is_not_canonical_gets_no_ticket(
    template: Path, tmp_path: Path
) -> None:
    async with enrolled(template, tmp_path) as node:
        body = encode(TicketRequest(1, [TicketWish(node.origin.today, Identity(b"\x31" * 32).key)]))
        statuses = dict[str, int]()
        for how in ("as it is", "high S", "small order"):
            first = await node.dialer.request(node.source, "POST", "/v1/tickets")
            proof = authorization(
                DEVICE, method="POST", path="/v1/tickets", body=body,
                nonce=read_challenge(first.headers["www-authenticate"]),
                audience=node.origin.keys.box.key, at_ms=int(time.time() * 1_000),
            )  # fmt: skip
            reply = await node.dialer.request(
                node.source, "POST", "/v1/tickets", body=body,
                headers={"authorization": unsound(proof, how)},
            )  # fmt: skip
            statuses[how] = reply.status
        assert statuses.pop("as it is") == 200
        assert set(statuses.values()) <= {400, 401, 403}, statuses
