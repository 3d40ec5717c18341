"""The hint desk: takes what other boxes tell by HTTP, and says where this box's gossip listens."""

from __future__ import annotations

from collections.abc import Callable

from ..mesh.hints.grapevine import Grapevine
from ..mesh.hints.web import WebCarrier
from ..protocol.codec import encode
from ..protocol.errors import RefusedError, RemoteError
from ..protocol.hint import PATH, POST_LIMIT_BYTES, GossipPlace, open_post
from .http.exchange import Answer, Exchange, Router

MUTED_RETRY_S = 600
MEDIA_TYPE = "application/vnd.farcast+msgpack"


class HintDesk:
    """Answers ``/v1/hints`` for whom ``welcomes`` lets in, by the sender's address."""

    def __init__(
        self,
        grapevine: Grapevine,
        welcomes: Callable[[str], bool],
        place: Callable[[], GossipPlace | None],
    ) -> None:
        self._grapevine = grapevine
        self._welcomes = welcomes
        self._place = place

    def add_to(self, router: Router) -> None:
        """Add both routes."""
        router.route("POST", PATH, self.take)
        router.route("GET", PATH, self.where)

    async def take(self, exchange: Exchange) -> Answer:
        """``POST /v1/hints``: 204 for a post that is one, whatever its hints are worth."""
        self._check(exchange)
        way, teller = WebCarrier.way, exchange.peer
        if self._grapevine.is_muted(way, teller):
            message = "nothing is heard from this address for a while: what it told was not true"
            raise RefusedError(message, status=429, retry_after_s=MUTED_RETRY_S, reason="muted")
        data = await exchange.read(POST_LIMIT_BYTES)
        try:
            hints = open_post(data).hints
        except RemoteError:
            self._grapevine.doubt(way, teller)
            raise
        for hint in hints:
            self._grapevine.hear(hint, way, teller)
        return Answer(204)

    async def where(self, exchange: Exchange) -> Answer:
        """``GET /v1/hints``: the port and key of this box's gossip process; 404 where it has none."""
        self._check(exchange)
        place = self._place()
        if place is None:
            raise RefusedError("no gossip listens here", status=404, reason="no_gossip")
        return Answer(200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, encode(place))

    def _check(self, exchange: Exchange) -> None:
        if not self._welcomes(exchange.peer):
            raise RefusedError("hints are for neighbours on this link", status=403, reason="off_link")
