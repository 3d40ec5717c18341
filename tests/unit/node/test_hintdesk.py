# pyright: reportPrivateUsage=false
"""The hint desk: whom it lets in, and what it answers to what is no post."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh.hints.grapevine import Grapevine
from farcast.node.hintdesk import HintDesk
from farcast.node.http.exchange import Answer, Exchange
from farcast.protocol.codec import encode
from farcast.protocol.errors import RefusedError, RemoteError
from farcast.protocol.hint import GossipPlace, Hint, HintPost, open_place

NET = b"o" * 8
HINT = encode(Hint(1, NET, "head", b"note"))
PLACE = GossipPlace(1, 7_436, b"k" * 32)


def asked(method: str, body: bytes = b"", peer: str = "192.0.2.9") -> Exchange:
    """Return a request of ``peer``."""

    async def read(limit_bytes: int) -> bytes:
        assert len(body) <= limit_bytes
        return body

    return Exchange.of(method, "/v1/hints", {"host": "box"}, peer=peer, secure=False, reader=read)


def desk(vine: Grapevine, place: GossipPlace | None = None) -> HintDesk:
    """Return a desk that welcomes one neighbour."""
    return HintDesk(vine, lambda peer: peer == "192.0.2.9", lambda: place)


async def test_a_post_is_taken_whatever_its_hints_are_worth() -> None:
    vine = Grapevine(NET, CollectorRegistry())
    answer: Answer = await desk(vine).take(asked("POST", encode(HintPost(1, [b"\xc1", HINT]))))
    assert answer.status == 204
    told = await anext(aiter(vine.listen("head")))
    assert told.news == b"note"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_is_not_on_the_link_is_refused(method: str) -> None:
    one = desk(Grapevine(NET, CollectorRegistry()), PLACE)
    handler = one.where if method == "GET" else one.take
    with pytest.raises(RefusedError, match="neighbours") as caught:
        await handler(asked(method, encode(HintPost(1, [HINT])), "198.51.100.1"))
    assert (caught.value.status, caught.value.reason) == (403, "off_link")


async def test_who_posts_nonsense_three_times_is_told_to_stay_away() -> None:
    one = desk(Grapevine(NET, CollectorRegistry()))
    for _ in range(3):
        with pytest.raises(RemoteError, match="HintPost"):
            await one.take(asked("POST", b"nonsense"))
    with pytest.raises(RefusedError, match="for a while") as caught:
        await one.take(asked("POST", encode(HintPost(1, [HINT]))))
    assert (caught.value.status, caught.value.reason) == (429, "muted")


async def test_it_says_where_gossip_listens() -> None:
    vine = Grapevine(NET, CollectorRegistry())
    body = (await desk(vine, PLACE).where(asked("GET"))).body
    assert isinstance(body, bytes)
    assert open_place(body) == PLACE
    with pytest.raises(RefusedError, match="no gossip"):
        await desk(vine).where(asked("GET"))


async def test_with_no_carrier_nothing_is_told() -> None:
    registry = CollectorRegistry()
    vine = Grapevine(NET, registry)
    await vine.publish("head", b"note")
    assert vine._core.wake_at(0.0) is None
