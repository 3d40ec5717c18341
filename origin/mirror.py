"""The mirror: an IPFS node of the publisher's own that holds every title too (``[kubo] rpc``).

The catalog never waits for it: what Kubo does not take is said and counted, and publishing the
title again makes it good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from ..node.blocks.store import DiskStore
from ..node.report import Report
from ..protocol import car
from ..protocol.cid import DAG_PB, Cid
from ..protocol.errors import FarcastError, LocalError
from ..protocol.unixfs import parse
from .kubo import Kubo

Result = dict[str, Any]

log = logging.getLogger(__name__)


class Mirror:
    """Puts titles into the Kubo at ``rpc`` and takes them out; every method blocks."""

    def __init__(self, rpc: str, registry: CollectorRegistry) -> None:
        self.rpc = rpc
        self._publishes = Counter(
            "farcast_origin_kubo_publishes",
            "Titles put into Kubo: pinned, or why not.",
            ["result"],
            registry=registry,
        )
        self._provides = Counter(
            "farcast_origin_kubo_provides",
            "Roots that Kubo announced to the IPFS network, or could not.",
            ["result"],
            registry=registry,
        )
        self._publishes.labels("pinned")
        for result in ("announced", "not_announced"):
            self._provides.labels(result)

    def add(
        self, roots: Sequence[Cid], gone: Iterable[Cid], size_bytes: int, store: DiskStore, report: Report
    ) -> Result:
        """Bring the DAGs of ``roots``, about ``size_bytes``, and pin them; then unpin what is ``gone``.

        Never raises what Farcast raises: ``error`` says in one sentence what went wrong, or is empty.
        """

        async def work() -> Result:
            async with Kubo(self.rpc) as kubo:
                found: Result = {"rpc": self.rpc, "version": "", "pinned": False, "announced": False}
                try:
                    found["version"] = await kubo.version()
                    await kubo.import_car(roots, _pieces(roots, size_bytes, store, report), size_bytes)
                    found["pinned"] = True
                    found["announced"] = await kubo.provide(roots[0])
                    for root in gone:
                        await kubo.unpin(root)
                except FarcastError as error:
                    if not found["pinned"]:
                        self._publishes.labels(error.reason).inc()
                    return {**found, "error": str(error)}
                return {**found, "error": ""}

        found = asyncio.run(work())
        if found["pinned"]:
            self._publishes.labels("pinned").inc()
            self._provides.labels("announced" if found["announced"] else "not_announced").inc()
        return found

    def remove(self, roots: Iterable[Cid]) -> str:
        """Unpin ``roots``; returns the reason word of what went wrong, empty where nothing did."""

        async def work() -> str:
            async with Kubo(self.rpc) as kubo:
                try:
                    for root in roots:
                        await kubo.unpin(root)
                except FarcastError as error:
                    log.warning("%s", error)
                    return error.reason
            return ""

        return asyncio.run(work())


async def _pieces(
    roots: Sequence[Cid], size_bytes: int, store: DiskStore, report: Report
) -> AsyncIterator[bytes]:
    """Yield the CAR of ``roots``, depth first, a block at a time from the store.

    Raises:
        LocalError: ``missing_block`` where the store has lost one.

    """
    yield car.header(roots)
    seen: set[Cid] = set()
    todo = [*reversed(roots)]
    done_bytes = 0
    while todo:
        cid = todo.pop()
        if cid in seen or cid.is_identity:
            continue
        seen.add(cid)
        data = await asyncio.to_thread(store.get, cid)
        if data is None:
            message = f"the block {cid} has left {store.folder}; publish the title again"
            raise LocalError(message, reason="missing_block")
        yield car.section(cid, data)
        done_bytes = min(done_bytes + len(data), size_bytes)
        report("kubo", done_bytes, size_bytes)
        if cid.codec == DAG_PB:
            todo += [link.cid for link in reversed(parse(cid, data).links)]
