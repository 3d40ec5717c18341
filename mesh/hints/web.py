"""Hints by HTTP: posted to a few of the boxes this one knows; whoever finds them new posts them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from ...protocol.codec import encode
from ...protocol.errors import FarcastError
from ...protocol.hint import HINTS_A_POST, PATH, HintPost
from ...protocol.ports import Dialer, Source

FANOUT = 4
"""Boxes told at one time: of those that pass on what is new to them, all but about 2 % hear of it."""
TIMEOUT_S = 5.0
ANSWER_LIMIT_BYTES = 4 << 10
_NO_CONTENT = 204


class WebCarrier:
    """Posts hints to ``FANOUT`` of ``peers``, as ``pick`` chooses them."""

    way = "http"

    def __init__(
        self,
        dialer: Dialer,
        peers: Callable[[], Sequence[Source]],
        pick: Callable[[Sequence[Source], int], Sequence[Source]],
        registry: CollectorRegistry,
    ) -> None:
        """``pick(peers, limit)`` returns so many of them at most; it is where the randomness comes from."""
        self._dialer = dialer
        self._peers = peers
        self._pick = pick
        self._posts = Counter(
            "farcast_mesh_hint_posts",
            "Posts of hints to other boxes, by result.",
            ["result"],
            registry=registry,
        )

    async def tell(self, hints: Sequence[bytes]) -> None:
        """Post the hints; who does not answer is left alone."""
        peers = self._peers()
        chosen = self._pick(peers, FANOUT)
        async with asyncio.TaskGroup() as tasks:
            for source in chosen:
                tasks.create_task(self._post(source, hints))

    def mute(self, teller: str) -> None:
        """Do nothing: who posts nonsense is refused where posts come in."""

    async def _post(self, source: Source, hints: Sequence[bytes]) -> None:
        for start in range(0, len(hints), HINTS_A_POST):
            body = encode(HintPost(1, list(hints[start : start + HINTS_A_POST])))
            try:
                reply = await self._dialer.request(
                    source, "POST", PATH, body=body, limit_bytes=ANSWER_LIMIT_BYTES, timeout_s=TIMEOUT_S
                )
            except FarcastError as error:
                self._posts.labels(error.reason).inc()
                return
            if reply.status != _NO_CONTENT:
                self._posts.labels(str(reply.status)).inc()
                return
            self._posts.labels("taken").inc()
