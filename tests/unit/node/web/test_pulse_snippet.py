"""The pulse snippet and the account in a browser, against the origin's own code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pytest

from farcast.node.http.exchange import Answer, Exchange
from farcast.node.http.nonces import NonceBook
from farcast.origin.pulses.admission import STORED, Admission, Arrival
from farcast.protocol.batch import PulsePost
from farcast.protocol.codec import decode, encode
from farcast.protocol.enrol import (
    DeviceAnswer,
    TicketAnswer,
    open_device_request,
    open_ticket_request,
)
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Rendition, Window, seal_manifest
from farcast.protocol.pulse import (
    ACTIVE,
    START,
    Pulse,
    Served,
    Viewing,
    check_pulse,
    open_viewing,
    pulse_hash,
    read_pulse,
    ticket_hash,
)
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice, open_ticket
from farcast.tests.unit.node.web.asloaded import FORMS, texts

NOW_MS = 1_800_000_000_000
TODAY = NOW_MS // DAY_MS
BOX, TICKETS, PUBLISHER = (Identity(letter * 32) for letter in (b"o", b"t", b"p"))
TOKEN = "T" * 22
HTTP = {"/v1/devices", "/v1/tickets", "/v1/pulses"}

Need = Callable[..., str]


def _rendition(name: str) -> Rendition:
    return Rendition(name, "video", f"{name}/index.m3u8", "avc1.4d401e", 1, 1, 640, 360, 25_000, "", 2, 1)


MANIFEST = Manifest(
    1, "film", 1, PUBLISHER.key, "Film", "x" * 3_000, "en", 4_000, bytes.fromhex("01551220") + bytes(32), 9,
    [_rendition("240p"), _rendition("360p")], [], Window(0, 0), [], [Payee("ada", 10_000)], "open", None,
    NOW_MS, b"",
)  # fmt: skip
CID, BLOCK = seal_manifest(MANIFEST, PUBLISHER)
FILM = {
    "manifest": CID.digest.hex(), "publishers": [PUBLISHER.key.hex()],
    "sources": [{"tier": 2, "relay": "ab" * 16, "url": ""}],
}  # fmt: skip


class Origin:
    """The origin's own parts behind what the snippet fetches."""

    def __init__(self) -> None:
        self.nonces = NonceBook(b"n" * 32, BOX.key)
        self.office = TicketOffice(TICKETS, b"s" * 32)
        self.admission = Admission(self.office, lambda: [TICKETS.key], Rules())
        self.device = b""
        self.grants: list[tuple[bytes, bytes]] = []
        self.pulses: list[bytes] = []
        self.posts: list[PulsePost] = []
        self.answers = True
        self.now_ms = NOW_MS
        self.unsigned: list[dict[str, Any]] = []

    async def answer(self, asked: dict[str, Any]) -> Answer:
        """Answer one request."""
        body = bytes.fromhex(asked["body"])
        if asked["url"] not in HTTP:
            self.unsigned.append(asked)
            return Answer(200, {}, b"K" * 16)
        assert asked["method"] == "POST"
        if asked["url"] == "/v1/pulses":
            return self._take(body)

        async def read(_: int) -> bytes:
            return body

        exchange = Exchange.of(
            "POST", asked["url"], {"host": "o", **asked["headers"]}, peer="", secure=True, reader=read
        )
        if "authorization" not in asked["headers"]:
            return self.nonces.challenge(0, b"x" * 16)
        return self._signed(asked["url"], body, self.nonces.check(exchange, body, 0))

    def _signed(self, path: str, body: bytes, signer: bytes) -> Answer:
        self.nonces = NonceBook(b"n" * 32, BOX.key)
        if path == "/v1/devices":
            request = open_device_request(body)
            assert request.device == signer
            if request.token != TOKEN:
                return Answer.problem(403, "Forbidden", "this invitation was used before")
            self.device = signer
            return Answer(200, {}, encode(DeviceAnswer(1, 0)))
        assert signer == self.device
        wishes = open_ticket_request(body).wishes
        grants = [
            self.office.issue(
                bytes([len(self.grants) + at]) * 16, wish.day, wish.session, Holder(b"a" * 16, 0)
            )
            for at, wish in enumerate(wishes)
        ]
        self.grants += [(grant.ticket, grant.key) for grant in grants]
        return Answer(200, {}, encode(TicketAnswer(1, grants)))

    def _take(self, body: bytes) -> Answer:
        if not self.answers:
            return Answer(0)
        post = decode(PulsePost, body)
        self.posts.append(post)
        parts = Arrival(post.tickets, post.pulses, [self.now_ms] * len(post.pulses))
        assert set(self.admission.admit(parts, self.now_ms).verdicts) == {STORED}
        self.pulses += post.pulses
        return Answer(200, {}, b"ack")


class Browser:
    """The scripts in a process of Node's."""

    def __init__(self, process: subprocess.Popen[str], origin: Origin) -> None:
        self._in, self._out = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        self._origin = origin

    async def say(self, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Tell it something and answer what it fetches until it is done; returns what it told its page."""
        told: dict[str, Any] = {}
        self._write(said)
        while True:
            line: dict[str, Any] = json.loads(self._out.readline())
            if "number" in line:
                try:
                    answer = await self._origin.answer(line)
                except RefusedError as error:
                    answer = Answer.problem(error.status, "Refused", str(error))
                assert isinstance(answer.body, bytes)
                self._write(
                    {
                        "number": line["number"],
                        "status": answer.status,
                        "headers": answer.headers,
                        "body": answer.body.hex(),
                    }
                )
            elif "told" in line:
                told = line
            else:
                return told | line

    async def watch(self, delta: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Tell it what was watched."""
        watched = {"title": "film", "state": ACTIVE, "delta": delta, "position": 70_000, "variant": "360p"}
        return await self.say(message={"watched": list((watched | more).values())})

    def later(self, now_ms: int) -> None:
        """Set the clock."""
        self._origin.now_ms = now_ms
        self._write({"now": now_ms})

    def world(self, **said: Any) -> None:  # noqa: ANN401 - JSON
        """``full``: how its table takes nothing; ``gone``: no server is there; ``keep``: what it has kept."""
        self._write(said)

    def _write(self, said: dict[str, Any]) -> None:
        self._in.write(json.dumps(said) + "\n")
        self._in.flush()


@contextmanager
def opened(node: str, folder: Path, origin: Origin, scripts: dict[str, str]) -> Generator[Browser]:
    given = folder / "given.json"
    given.write_text(json.dumps({"film": FILM, "block": BLOCK.hex(), "now": NOW_MS, "scripts": scripts}))
    with subprocess.Popen(
        [node, str(Path(__file__).with_name("browser.mjs")), str(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Browser(process, origin)
        finally:
            process.kill()


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture(params=FORMS)
def browser(request: pytest.FixtureRequest, need: Need, tmp_path: Path, origin: Origin) -> Generator[Browser]:
    names = ["sw.js", "account.js"]
    scripts = dict(zip(names, texts(request.param, *names), strict=True))
    with opened(need("node"), tmp_path, origin, scripts) as found:
        yield found


def verified(origin: Origin, pulses: list[bytes]) -> list[tuple[Pulse, Viewing]]:
    """Verify pulses under the newest ticket, and that each names the one before."""
    ticket, signed = open_ticket(origin.grants[-1][0], [TICKETS.key])
    link, found = ticket_hash(signed), list[tuple[Pulse, Viewing]]()
    for data in pulses:
        pulse = check_pulse(data, ticket)
        assert pulse.prev == link
        link = pulse_hash(read_pulse(data)[1].body)
        found.append((pulse, open_viewing(pulse, origin.grants[-1][1])))
    return found


async def test_pulses_are_what_a_node_would_have_signed(browser: Browser, origin: Origin) -> None:
    assert await browser.say(message={"token": TOKEN}) == {"told": "", "done": True}
    assert len(origin.device) == 32
    assert (await browser.watch(0, state=START, position=0, variant=None))["done"] is True
    browser.later(NOW_MS + 60_000)
    assert (await browser.watch(59_876))["done"] is True
    (first, started), (second, active) = verified(origin, origin.pulses)
    assert (first.seq, first.at_ms, first.cum_ms, first.delta_ms, first.beacon) == (1, NOW_MS, 0, 0, 0)
    assert (second.seq, second.at_ms, second.cum_ms, second.delta_ms) == (2, NOW_MS + 60_000, 59_876, 59_876)
    served = [Served(2, bytes.fromhex("ab" * 16), len(BLOCK) // 1_000)]
    assert started == Viewing(START, CID.digest, 0, 0, served, bytes(16)), "the manifest came from there"
    assert active == Viewing(ACTIVE, CID.digest, 70_000, 1, [], bytes(16))
    assert len(origin.grants) == 1


async def unanswered(browser: Browser, origin: Origin) -> None:
    """Enrol, and watch while the origin answers no post: two pulses wait."""
    await browser.say(message={"token": TOKEN})
    origin.answers = False
    await browser.watch(0, state=START)
    await browser.watch(30_000)
    origin.answers = True


async def test_what_could_not_be_posted_goes_with_the_next_also_into_another_day(
    browser: Browser, origin: Origin
) -> None:
    await unanswered(browser, origin)
    assert origin.pulses == []
    browser.later((TODAY + 1) * DAY_MS + 1_000)
    await browser.watch(20_000)
    (post,) = origin.posts
    assert len(post.pulses) == 3
    assert post.tickets == [grant for grant, _ in origin.grants]
    assert [pulse.seq for pulse, _ in verified(origin, post.pulses[2:])] == [1]
    await browser.watch(10_000)
    assert len(origin.posts[-1].pulses) == 1, "what was answered is not sent again"
    assert [pulse.cum_ms for pulse, _ in verified(origin, origin.pulses[2:])] == [20_000, 30_000]


@pytest.mark.parametrize("how", ["aborts", "throws"])
async def test_what_cannot_be_kept_is_not_sent(browser: Browser, origin: Origin, how: str) -> None:
    await browser.say(message={"token": TOKEN})
    await browser.watch(0, state=START)
    browser.world(full=how)
    await browser.watch(30_000)
    browser.world(full="")
    await browser.watch(20_000)
    (_, second) = (pulse for pulse, _ in verified(origin, origin.pulses))
    assert (second.seq, second.cum_ms) == (2, 20_000), "no number is signed twice, nor left out"


@pytest.mark.parametrize("how", ["aborts", "throws"])
async def test_where_keys_cannot_be_kept_an_invitation_says_so(browser: Browser, how: str) -> None:
    browser.world(full=how)
    assert "keeps no keys" in (await browser.say(message={"token": TOKEN}))["told"]


async def test_a_second_invitation_has_a_ticket_of_its_own_and_what_waits_still_goes(
    browser: Browser, origin: Origin
) -> None:
    await unanswered(browser, origin)
    await browser.say(message={"token": TOKEN})
    await browser.watch(0, state=START)
    (post,) = origin.posts
    assert post.tickets == [grant for grant, _ in origin.grants]
    assert len(post.tickets) == 2
    assert [pulse.seq for pulse, _ in verified(origin, post.pulses[2:])] == [1]


async def test_with_every_server_gone_watching_is_signed_by_what_was_known(
    browser: Browser, origin: Origin
) -> None:
    await browser.say(message={"token": TOKEN})
    browser.world(gone=True, keep={"/film": FILM | {"renditions": [["240p"], ["360p"]]}})
    await browser.watch(5_000)
    ((_, viewing),) = verified(origin, origin.pulses)
    assert viewing == Viewing(ACTIVE, CID.digest, 70_000, 1, [], bytes(16))


async def test_without_an_account_nothing_is_signed_or_sent(browser: Browser, origin: Origin) -> None:
    assert await browser.watch(1_000) == {"done": True}
    assert not origin.grants
    assert not origin.posts


async def test_a_refused_invitation_says_why_and_leaves_nothing(browser: Browser, origin: Origin) -> None:
    assert await browser.say(message={"token": "W" * 22}) == {
        "told": "this invitation was used before",
        "done": True,
    }
    await browser.watch(1_000)
    assert origin.posts == []


async def test_content_keys_are_asked_for_with_a_proof_where_there_is_an_account(
    browser: Browser, origin: Origin
) -> None:
    path = "/v1/keys/" + "0f" * 16
    assert (await browser.say(key=path))["key"] == (b"K" * 16).hex()
    assert origin.unsigned[-1]["headers"] == {}
    await browser.say(message={"token": TOKEN})
    assert (await browser.say(key=path))["key"] == (b"K" * 16).hex()
    scheme, _, proof = origin.unsigned[-1]["headers"]["authorization"].partition(" ")
    assert scheme == "Farcast-Ticket"
    assert proof.split(".")[1] == str(NOW_MS)
    assert len(origin.grants) == 1
    await browser.watch(5_000)
    assert len(origin.grants) == 1, "one ticket a day, for keys and pulses"
