"""The IPFS gateways an operator named: asked for one block at a time, and believed in nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from ..protocol.cid import Cid
from ..protocol.errors import RefusedError, RemoteError, UnreachableError
from ..protocol.ports import Dialer, Source, TierName
from ..protocol.unixfs import BLOCK_LIMIT_BYTES

BLOCK_S = 30.0
"""What one block may take, as long as IPFS clients wait."""
ROUNDS = 3
PAUSE_S = 1.0
RETRY_LIMIT_S = 10.0
STRIKES = 3
"""Wrong blocks after which a gateway is not asked again for this pin."""

_GONE = (400, 403, 404, 406, 410, 451)


class Gateways:
    """Makes ``Asked`` of the gateways at ``bases``, dialled as ``dialer`` may dial."""

    def __init__(self, bases: Sequence[str], dialer: Dialer, registry: CollectorRegistry) -> None:
        self.sources: list[Source] = []
        self.change(bases)
        self._dialer = dialer
        self._rejected = Counter(
            "farcast_relay_pin_rejected_blocks",
            "Answers of IPFS gateways that brought no block, by reason.",
            ["reason"],
            registry=registry,
        )

    def change(self, bases: Sequence[str]) -> None:
        """Ask others from the next pin on."""
        self.sources = [Source(TierName.CDN, "the gateway", base.rstrip("/")) for base in bases]

    def ask(self) -> Asked:
        """Return the gateways for one pin, all of them still trusted to answer."""
        return Asked(self.sources, self._dialer, self._rejected)


class Asked:
    """The gateways as one pin knows them: who lied to it three times is left out."""

    def __init__(self, sources: Sequence[Source], dialer: Dialer, rejected: Counter) -> None:
        self._strikes = dict.fromkeys(sources, 0)
        self._dialer = dialer
        self._rejected = rejected

    async def block(self, cid: Cid) -> bytes:
        """Return a verified block from the first gateway that has it.

        Raises:
            RemoteError: of the last gateway asked, once none is left or all were asked three times.

        """
        failure: RemoteError = UnreachableError(f"no gateway is left to ask for {cid}")
        for round_ in range(ROUNDS):
            pause_s = PAUSE_S * 2**round_
            hopeless = True
            for source in [source for source, strikes in self._strikes.items() if strikes < STRIKES]:
                try:
                    return await self._from(source, cid)
                except RemoteError as error:
                    failure = error
                    self._rejected.labels(error.reason).inc()
                    final = isinstance(error, RefusedError) and error.status in _GONE
                    hopeless = hopeless and (final or error.reason == "private_address")
                    if isinstance(error, RefusedError) and error.retry_after_s is not None:
                        pause_s = min(max(pause_s, error.retry_after_s), RETRY_LIMIT_S)
            if hopeless or round_ == ROUNDS - 1:
                break
            await asyncio.sleep(pause_s)
        raise failure

    async def _from(self, source: Source, cid: Cid) -> bytes:
        try:
            reply = await self._dialer.request(
                source, "GET", f"/ipfs/{cid}?format=raw", limit_bytes=BLOCK_LIMIT_BYTES, timeout_s=BLOCK_S
            )
        except UnreachableError as error:
            if error.reason != "private_address":
                raise
            message = f"{source.address} is a private address; set [network] allow_private = true to ask it"
            raise UnreachableError(message, reason=error.reason) from error
        if reply.status != 200:  # noqa: PLR2004 - a block or nothing
            after = reply.headers.get("retry-after", "")
            raise RefusedError(
                f"{source.address} answered {reply.status} for {cid}",
                status=reply.status,
                retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
            )
        if not await asyncio.to_thread(cid.matches, reply.body):
            self._strikes[source] += 1
            message = f"{source.address} sent bytes that are not the block {cid}"
            raise RemoteError(message, reason="hash_mismatch")
        return reply.body
