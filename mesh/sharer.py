"""The sharer: finds neighbours that hold or want the same titles, and shares each title with them.

Nobody is told what this box wants but neighbours it dials, and they only one title at a time. Either end
proves its key before a title is named to it: the dialled one by its certificate, the other by a signed hello.
Over 400 lines because both sides of the handshake change the same few tables of links, dials and titles.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha256

from prometheus_client import CollectorRegistry

from ..protocol.cid import Cid
from ..protocol.codec import decode
from ..protocol.errors import FarcastError, RemoteError
from ..protocol.identity import Identity
from ..protocol.ports import BlockStore, StreamDialer
from ..protocol.request import authorization, open_authorization
from ..protocol.sharing import (
    ALPN,
    FRAME_LIMIT_BYTES,
    NONCE_BYTES,
    SHARE_METHOD,
    SHARE_PATH,
    Hello,
    Kind,
    News,
    OneBlock,
    Referral,
    Refusal,
    Welcome,
    Wish,
    from_marks,
    to_marks,
)
from .neighbours import Neighbour
from .share import Layout, Share
from .sharelink import ALIVE_S, HANDSHAKE_S, SILENCE_S, ShareLink
from .sharetally import ShareTally

LOOK_S = 0.5
AGAIN_S = 10.0
"""After which a neighbour that had nothing of a title, or was not reached, is asked again."""
SHARES_LIMIT = 64
LINKS_LIMIT = 256
MEET_S = 0.3
"""So long a title's first block waits for neighbours that are being asked whether they share it."""
CROSSED_S = 1.0
"""So long a dial that crossed this box's own is waited for."""
KEPT_S = 60.0
"""How long a title stays ready for the next neighbour after the last one left."""
_WORDS: dict[int, type[News | Wish | OneBlock | Referral]] = {
    Kind.NEWS: News,
    Kind.ASK: Wish,
    Kind.WITHDRAWAL: OneBlock,
    Kind.LACK: OneBlock,
    Kind.REFERRAL: Referral,
}

Find = Callable[[bytes], Awaitable[Layout | None]]
"""Returns what a title is made of by its manifest's digest, where this box holds all of it."""


class Sharer:
    """Everything this box shares with neighbours; needs a running loop.

    ``identity`` is the key neighbours know this box by; ``neighbours`` who is on the link; ``find`` serves
    titles nobody here asked for; ``barred`` and ``kept`` are as in ``Share``.
    """

    def __init__(
        self,
        identity: Identity,
        dialer: StreamDialer,
        neighbours: Callable[[], Sequence[Neighbour]],
        store: BlockStore,
        *,
        find: Find,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        barred: Callable[[Cid, str], bool] = lambda _cid, _title: False,
        kept: Callable[[Cid, int], None] = lambda _cid, _size: None,
    ) -> None:
        self._identity = identity
        self._dialer = dialer
        self._neighbours = neighbours
        self._store = store
        self._find = find
        self._clock_ms = clock_ms
        self._barred, self._kept = barred, kept
        self._tally = ShareTally(registry)
        self._tally.links(lambda: sum(len(share.links) for share in self._shares.values()))
        self._shares: dict[bytes, Share] = {}
        self._of: dict[ShareLink, Share] = {}
        self._greetings: dict[ShareLink, bytes] = {}
        self._told: dict[ShareLink, tuple[Share, set[int], set[int]]] = {}
        self._dials: dict[tuple[bytes, bytes], ShareLink | None] = {}
        self._again: dict[tuple[bytes, bytes], float] = {}
        self._crossed: set[tuple[bytes, bytes]] = set()  # their own dial is on its way here
        self._meet_until: dict[bytes, float] = {}
        self._links: set[ShareLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._answered = asyncio.Event()

    @property
    def moving(self) -> bool:
        """Whether a title is on its way here, or to a neighbour."""
        return any(share.links for share in self._shares.values())

    async def bring(self, layout: Layout, fetch: Callable[[Cid], Awaitable[bytes]] | None) -> None:
        """Return once all of a title is here, from neighbours and what ``fetch`` brings.

        Raises:
            FarcastError: nobody on the link has what is missing, and the uplink did not bring it.

        """
        share = self._share(layout)
        for pair in [pair for pair in self._again if pair[0] == layout.digest]:
            del self._again[pair]
        share.wanted = True
        self._dial_all(layout.digest, share, asyncio.get_running_loop().time())
        try:
            await self._meet(layout.digest, HANDSHAKE_S)  # what one of them has is not fetched from outside
            await share.bring(fetch)
        finally:
            share.wanted = False

    async def seek(self, layout: Layout, cid: Cid, patience_s: float) -> bool:
        """Wait for a block of a title being watched; as ``Share.seek``."""
        share = self._shares.get(layout.digest)
        if share is None:
            if len(self._shares) >= SHARES_LIMIT:
                return False
            share = self._share(layout)
        now = asyncio.get_running_loop().time()
        if not share.watched:
            share.watch()
            self._meet_until[layout.digest] = now + MEET_S
            self._dial_all(layout.digest, share, now)
        await self._meet(layout.digest, min(patience_s, self._meet_until.get(layout.digest, now) - now))
        return await share.seek(cid, patience_s)

    async def _meet(self, digest: bytes, limit_s: float) -> None:
        """Wait until the neighbours that were just asked for a title have answered."""
        if limit_s <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._meets(digest):
                    self._answered.clear()
                    await self._answered.wait()

    def _meets(self, digest: bytes) -> bool:
        """Whether a neighbour is still to say whether it shares a title."""
        asked = any(one[0] == digest and link not in self._of for one, link in self._dials.items())
        return asked or any(one[0] == digest for one in self._crossed)

    def _cross(self, pair: tuple[bytes, bytes]) -> None:
        """Wait for a neighbour's own dial, which is on its way here, for a while."""

        def gone() -> None:
            self._crossed.discard(pair)
            self._answered.set()

        self._crossed.add(pair)
        asyncio.get_running_loop().call_later(CROSSED_S, gone)

    def found(self, digest: bytes, cid: Cid, *, here: bool) -> None:
        """Hear that this box itself fetched a block of a title being watched, or could not."""
        share = self._shares.get(digest)
        if share is not None:
            share.found(cid, here=here)

    def accept(self, gone: Callable[[], None]) -> ShareLink:
        """Return the protocol of one accepted connection; ``gone`` is called when it ends."""
        return ShareLink(self, dialled=False, gone=gone)

    async def run(self) -> None:
        """Dial, keep links alive and let go of what nobody uses, until cancelled."""
        try:
            while True:
                self._look.clear()
                self._turn(asyncio.get_running_loop().time())
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._look.wait()
                except TimeoutError:
                    continue
        finally:
            await self.close()

    async def close(self) -> None:
        """End everything."""
        for link in [*self._links]:
            link.close("leaving")
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for share in [*self._shares.values()]:
            await share.close()

    # -- links

    def opened(self, link: ShareLink) -> None:
        """Greet whoever dialled with a nonce to sign."""
        if len(self._links) >= LINKS_LIMIT:
            self._refuse(link, "too_many_links")
            return
        self._links.add(link)
        asyncio.get_running_loop().call_later(HANDSHAKE_S, self._expire, link)
        if not link.dialled:
            nonce = self._greetings[link] = secrets.token_bytes(NONCE_BYTES)
            link.say(Kind.CHALLENGE, nonce)

    def said(self, link: ShareLink, kind: int, body: memoryview) -> None:
        """Hear one word; raises ``RemoteError`` for what nobody may say now."""
        share, data = self._of.get(link), bytes(body)
        if kind == Kind.ALIVE:
            return
        if share is not None and kind in _WORDS:
            share.heard(link, decode(_WORDS[kind], data, limit_bytes=FRAME_LIMIT_BYTES), kind)
        elif kind == Kind.REFUSAL:
            reason = decode(Refusal, data).reason
            share = self._told[link][0] if link in self._told else None
            if reason == "twice" and share is not None and link.peer not in share.links:
                self._cross((share.layout.digest, link.peer))
            self._tally.refused(reason if reason in _REASONS else "other")
            link.close("refused")
        elif share is None and kind == Kind.CHALLENGE and link.dialled and link not in self._told:
            self._greet(link, decode(bytes, data))
        elif share is None and kind == Kind.WELCOME and link in self._told:
            self._welcomed(link, decode(Welcome, data, limit_bytes=FRAME_LIMIT_BYTES))
        elif share is None and kind == Kind.HELLO and link in self._greetings:
            hello = decode(Hello, data, limit_bytes=FRAME_LIMIT_BYTES)
            self._spawn(self._hello(link, hello, self._greetings.pop(link)))
        else:
            raise RemoteError("a word out of its turn", reason="malformed")

    def piece(self, link: ShareLink, block: int, offset: int, data: memoryview) -> None:
        """Hear one piece."""
        share = self._of.get(link)
        if share is None:
            raise RemoteError("a piece out of its turn", reason="malformed")
        share.piece(link, block, offset, data)

    def sent(self, link: ShareLink) -> None:
        """Go on sending."""
        share = self._of.get(link)
        if share is not None:
            share.sent(link)

    def closed(self, link: ShareLink, reason: str) -> None:
        """Forget a link."""
        self._answered.set()
        self._links.discard(link)
        self._greetings.pop(link, None)
        self._told.pop(link, None)
        for pair in [pair for pair, one in self._dials.items() if one is link]:
            del self._dials[pair]
        share = self._of.pop(link, None)
        if share is not None:
            if reason not in _IN_PEACE:
                self._tally.cut(reason)
            share.leave(link)
            self._look.set()

    # -- handshakes

    def _greet(self, link: ShareLink, nonce: bytes) -> None:
        """Say who this box is and which title it means."""
        [(digest, _)] = [pair for pair, one in self._dials.items() if one is link] or [(b"", b"")]
        share = self._shares.get(digest)
        if share is None or len(nonce) != NONCE_BYTES:
            raise RemoteError("a challenge for nothing", reason="malformed")
        proof = authorization(
            self._identity,
            method=SHARE_METHOD,
            path=SHARE_PATH,
            body=digest,
            nonce=nonce,
            audience=link.peer,
            at_ms=self._clock_ms(),
        )
        held, claims = share.held_places, share.swarm.claims
        self._told[link] = (share, set(held), set(claims))
        link.say(Kind.HELLO, Hello(1, proof, digest, to_marks(held, len(share.layout.cids)), claims))

    def _welcomed(self, link: ShareLink, welcome: Welcome) -> None:
        share, held, claims = self._told.pop(link)
        if link.peer in share.links or not self._join(share, link, welcome.marks, welcome.claims):
            self._refuse(link, "twice")
            return
        fresh = [place for place in share.held_places if place not in held]
        now = set(share.swarm.claims)
        share.tell(link, fresh, sorted(now - claims), sorted(claims - now))

    async def _hello(self, link: ShareLink, hello: Hello, nonce: bytes) -> None:
        try:
            proof = open_authorization(hello.proof)
        except RemoteError:
            self._refuse(link, "bad_signature")
            return
        said = (proof.method, proof.path, proof.nonce, proof.audience, proof.body_hash)
        due = (SHARE_METHOD, SHARE_PATH, nonce, self._identity.key, sha256(hello.title).digest())
        if said != due:
            self._refuse(link, "wrong_request")
            return
        if all(neighbour.key != proof.key for neighbour in self._neighbours()):
            self._refuse(link, "stranger")
            return
        share = self._shares.get(hello.title) or await self._found(hello.title)
        if share is None or not (share.wanted or share.watched or not share.swarm.lacks):
            self._refuse(link, "not_held")
            return
        if not link.open:
            return
        link.peer = proof.key
        reason = self._crossing(share, link)
        if reason:
            self._refuse(link, reason)
            return
        marks = to_marks(share.held_places, len(share.layout.cids))
        link.say(Kind.WELCOME, Welcome(1, marks, share.swarm.claims))
        if not self._join(share, link, hello.marks, hello.claims):
            self._refuse(link, "full")

    def _crossing(self, share: Share, link: ShareLink) -> str:
        """Of two connections between the same two keep the one that the smaller key dialled."""
        digest, mine = share.layout.digest, self._identity.key < link.peer
        dialled = self._dials.get((digest, link.peer))
        there = share.links.get(link.peer)
        if there is not None and (not there.dialled or mine):
            return "twice"
        if dialled is not None and mine:
            return "twice"
        for other in (there, dialled):
            if other is not None and other is not link:
                other.close("twice")
                share.leave(other)
                self._of.pop(other, None)
        return ""

    def _join(self, share: Share, link: ShareLink, marks: bytes, claims: Sequence[int]) -> bool:
        self._of[link] = share
        self._crossed.discard((share.layout.digest, link.peer))
        if not share.join(link, from_marks(marks, len(share.layout.cids))):
            del self._of[link]
            return False
        share.heard(link, News([], [*claims], []), Kind.NEWS)
        self._answered.set()
        return True

    async def _found(self, digest: bytes) -> Share | None:
        try:
            layout = await self._find(digest)
        except FarcastError:
            return None
        return self._share(layout) if layout is not None and len(self._shares) < SHARES_LIMIT else None

    def _share(self, layout: Layout) -> Share:
        share = self._shares.get(layout.digest)
        if share is None:
            share = self._shares[layout.digest] = Share(
                self._identity.key,
                layout,
                self._store,
                tally=self._tally,
                barred=self._barred,
                kept=self._kept,
            )
        return share

    def _refuse(self, link: ShareLink, reason: str) -> None:
        self._tally.refused(reason)
        link.say(Kind.REFUSAL, Refusal(reason))
        link.close(reason)

    def _expire(self, link: ShareLink) -> None:
        if link in self._links and link not in self._of:
            link.abort("timeout")

    # -- turns

    def _turn(self, now: float) -> None:
        for link in self._links:
            if now - link.heard_at > SILENCE_S:
                link.abort("silent")
            elif link in self._of and now - link.spoke_at > ALIVE_S:
                link.say(Kind.ALIVE)
        for digest, share in [*self._shares.items()]:
            if (share.wanted or share.watched) and share.swarm.lacks:
                self._dial_all(digest, share, now)
            share.part()
            if not share.links and not share.wanted and not share.watched and now - share.used_at > KEPT_S:
                del self._shares[digest]
                self._meet_until.pop(digest, None)
                self._spawn(share.close())

    def _dial_all(self, digest: bytes, share: Share, now: float) -> None:
        known = {neighbour.key for neighbour in self._neighbours()}
        for pair in [pair for pair in self._again if pair[1] not in known]:
            del self._again[pair]
        for neighbour in self._neighbours():
            pair = (digest, neighbour.key)
            if neighbour.key in share.links or pair in self._dials or self._again.get(pair, 0.0) > now:
                continue
            if len(self._links) + len(self._dials) >= LINKS_LIMIT:
                return
            self._again[pair] = now + AGAIN_S
            self._dials[pair] = None
            self._spawn(self._dial(pair, neighbour))

    async def _dial(self, pair: tuple[bytes, bytes], neighbour: Neighbour) -> None:
        link = ShareLink(self, dialled=True)
        link.peer = neighbour.key
        self._dials[pair] = link
        try:
            await self._dialer.open_stream(neighbour.source, ALPN, lambda: link, timeout_s=HANDSHAKE_S)
        except FarcastError as error:
            self._tally.refused(error.reason)
        finally:
            if link not in self._links:
                self._dials.pop(pair, None)
                self._answered.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_REASONS = frozenset(
    ("too_many_links", "bad_signature", "wrong_request", "stranger", "not_held", "twice", "full")
)
_IN_PEACE = frozenset(("closed", "leaving", "given_up", "done", "twice", "refused"))
