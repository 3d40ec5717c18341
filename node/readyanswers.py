"""Ready answers: blocks and files of titles that can be sent at once, remembered for a few seconds.

Naming a block and building its headers costs more than sending 64 KiB, so what was answered is kept
as long as no block has left the store and the catalog is what it was. A hot block costs one look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from .blocks.store import DiskStore
from .catalog.replica import Heads
from .http.exchange import Answer
from .http.head import Head

READY_KEPT = 4_096
READY_S = 5.0
"""How long an answer is remembered; also how late a block's use is noted for eviction."""
_QUERIES = ("", "format=raw")

Epoch = tuple[int, int]
"""Blocks lost and catalog entries so far: while both stay, a ready answer stays true."""


class _Ready(NamedTuple):
    answer: Answer
    epoch: Epoch
    until: float


class ReadyAnswers:
    """Answers from memory and look-ups alone: never blocks, never fetches.

    ``block`` answers a request for one raw block that is held, ``file`` a title's file whose blocks are
    all held; None for all else.
    """

    def __init__(
        self,
        store: DiskStore,
        heads: Heads,
        block: Callable[[Head], Answer | None],
        file: Callable[[str, str], Answer | None],
    ) -> None:
        """Remember nothing yet."""
        self._store = store
        self._heads = heads
        self._block = block
        self._file = file
        self._ready: dict[str, _Ready] = {}

    def epoch(self) -> Epoch:
        """Return what every ready answer was made from; it differs once one may be untrue."""
        return self._store.losses, self._heads.catalog.size

    def lookup(self, head: Head) -> Answer | None:
        """Answer at once what is held and needs no fetching; None for all else."""
        epoch, now = self.epoch(), monotonic()
        ready = self._ready.get(head.target)
        if ready is not None and ready.epoch == epoch and now < ready.until:
            return ready.answer
        answer = self._find(head)
        if answer is not None and head.query in _QUERIES:
            if len(self._ready) >= READY_KEPT:
                self._ready.clear()
            self._ready[head.target] = _Ready(answer, epoch, now + READY_S)
        return answer

    def _find(self, head: Head) -> Answer | None:
        path = head.path
        if path.startswith("/ipfs/"):
            return self._block(head)
        if path.startswith("/watch/") and "%" not in path:
            title, _, file = path[7:].partition("/")
            return self._file(title, file)
        return None
