"""Kubo by its RPC API: the few calls that put a title into an IPFS node and take it out again.

Written against Kubo 0.42; a version is never refused, an endpoint that is missing is done without.
Rules of the API: POST only, answers are JSON lines, errors are ``{"Message", "Code", "Type"}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from aiohttp import (
    AsyncIterablePayload,
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    MultipartWriter,
)

from ..protocol.cid import Cid
from ..protocol.errors import RefusedError, RemoteError, UnreachableError

ANSWER_LIMIT_BYTES = 1 << 20
CONNECT_S = 5.0
CALL_S = 15.0
STALL_S = 30.0
"""An upload of which Kubo takes nothing for so long is given up."""
PIN_LEAST_S = 60.0
PIN_SLOWEST_BYTES_S = 8 << 20
"""Kubo reads a whole title again when it pins it; on a slow disk not faster than this."""
PROVIDE_S = 5.0

_NOT_PINNED = ("not pinned", "pinned indirectly")


class _Link(msgspec.Struct, frozen=True):
    cid: str = msgspec.field(name="/")


class _Root(msgspec.Struct, frozen=True, rename="pascal"):
    cid: _Link
    pin_error_msg: str = ""


class _Stats(msgspec.Struct, frozen=True, rename="pascal"):
    block_count: int


class _Imported(msgspec.Struct, frozen=True, rename="pascal"):
    root: _Root | None = None
    stats: _Stats | None = None


class _Version(msgspec.Struct, frozen=True, rename="pascal"):
    version: str


class _Problem(msgspec.Struct, frozen=True, rename="pascal"):
    message: str


class _Answer(NamedTuple):
    status: int
    body: bytes


class Kubo:
    """A client of one Kubo; needs a running loop, and is closed at the end of an ``async with``."""

    def __init__(self, base: str) -> None:
        """``base`` is the RPC API's URL, without ``/api/v0``."""
        self.base = base.rstrip("/")
        self._session = ClientSession(
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_S),
            trust_env=False,
        )

    async def version(self) -> str:
        """Return the version it says it has; raises as ``import_car``, ``not_kubo`` for something else."""
        answer = await self._call("version", {}, CALL_S)
        try:
            found = msgspec.json.decode(answer.body, type=_Version).version
        except msgspec.MsgspecError as error:
            message = f"what answers at {self.base} is no Kubo; set [kubo] rpc to the address of its RPC API"
            raise RemoteError(message, reason="not_kubo") from error
        return found[:40]

    async def import_car(self, roots: Sequence[Cid], pieces: AsyncIterator[bytes], size_bytes: int) -> int:
        """Stream a CAR into Kubo and pin its ``roots``; returns how many blocks it took.

        ``pieces`` are the CAR as it is made, about ``size_bytes`` in all; what they raise is raised.

        Raises:
            UnreachableError: nobody answers, or not in time.
            RefusedError: Kubo says no, in its words.
            RemoteError: ``not_pinned`` where it could not pin a root, ``malformed``.

        """
        pin_s = max(PIN_LEAST_S, size_bytes / PIN_SLOWEST_BYTES_S)
        loop = asyncio.get_running_loop()
        failure: list[BaseException] = []

        async def upload(limit: asyncio.Timeout) -> AsyncIterator[bytes]:
            try:
                async for piece in pieces:
                    limit.reschedule(loop.time() + STALL_S)
                    yield piece
            except Exception as error:  # aiohttp would only say that the upload failed
                failure.append(error)
                raise
            limit.reschedule(loop.time() + pin_s + CALL_S)

        # with a node that is online, pinning a DAG that lacks a block waits for the network: hence a timeout
        options = {"pin-roots": "true", "stats": "true", "cid-base": "base32", "timeout": f"{pin_s:.0f}s"}
        try:
            async with asyncio.timeout(STALL_S) as limit:
                answer = await self._post("dag/import", options, _form(upload(limit)))
        except TimeoutError as error:
            raise self._silent("dag/import") from error
        except UnreachableError:
            if failure:
                raise failure[0] from None
            raise
        return self._read_import(answer, roots)

    async def provide(self, root: Cid) -> bool:
        """Let Kubo announce that it has ``root``; False where it cannot, which is no failure."""
        options = {"arg": str(root), "timeout": f"{PROVIDE_S:.0f}s"}
        try:
            await self._call("routing/provide", options, PROVIDE_S + CALL_S)
        except RemoteError:  # no peers yet, or a version without the call
            return False
        return True

    async def unpin(self, root: Cid) -> bool:
        """Let Kubo forget ``root`` when it next collects; False where it was not pinned.

        Raises:
            UnreachableError, RefusedError: as ``import_car``.

        """
        try:
            await self._call("pin/rm", {"arg": str(root), "cid-base": "base32"}, CALL_S)
        except RefusedError as error:
            if any(words in str(error) for words in _NOT_PINNED):
                return False
            raise
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def _read_import(self, answer: _Answer, roots: Sequence[Cid]) -> int:
        blocks: int | None = None
        missing = {str(root): "Kubo did not mention it" for root in roots}
        try:
            for line in msgspec.json.Decoder(_Imported).decode_lines(answer.body):
                if line.root is not None:
                    missing[line.root.cid.cid] = line.root.pin_error_msg
                if line.stats is not None:
                    blocks = line.stats.block_count
        except msgspec.MsgspecError as error:
            message = f"what answers at {self.base} is no Kubo: it imported with words that are not JSON"
            raise RemoteError(message, reason="malformed") from error
        for root, problem in missing.items():
            if problem:
                message = f"Kubo at {self.base} took the blocks but did not pin {root}: {_sentence(problem)}"
                raise RemoteError(message, reason="not_pinned")
        if blocks is None:  # an error in the middle ends the answer early
            message = f"Kubo at {self.base} broke the import off; its log says why"
            raise RemoteError(message, reason="malformed")
        return blocks

    async def _call(self, command: str, options: Mapping[str, str], timeout_s: float) -> _Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(command, options, None)
        except TimeoutError as error:
            raise self._silent(command) from error

    async def _post(self, command: str, options: Mapping[str, str], body: Any) -> _Answer:  # noqa: ANN401 - aiohttp's
        url = f"{self.base}/api/v0/{command}"
        try:
            async with self._session.post(url, params=options, data=body, allow_redirects=False) as response:
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > ANSWER_LIMIT_BYTES:
                        message = f"what answers at {self.base} is no Kubo: {command} never ends"
                        raise RemoteError(message, reason="too_large")
                answer = _Answer(response.status, bytes(body))
        except (ClientError, OSError, ValueError) as error:
            why = _sentence(str(error) or type(error).__name__)
            raise UnreachableError(f"Kubo at {self.base} cannot be reached ({why})") from error
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise self._refusal(command, answer)
        return answer

    def _refusal(self, command: str, answer: _Answer) -> RefusedError:
        try:
            words = msgspec.json.decode(answer.body, type=_Problem).message
        except msgspec.MsgspecError:
            words = f"status {answer.status}"
        message = f"Kubo at {self.base} refused {command}: {_sentence(words)}"
        return RefusedError(message, status=answer.status)

    def _silent(self, command: str) -> UnreachableError:
        message = f"Kubo at {self.base} was silent for too long at {command}"
        return UnreachableError(message, reason="timeout")


def _form(pieces: AsyncIterator[bytes]) -> MultipartWriter:
    """Return the one file part that the API reads, sent as it is made."""
    form = MultipartWriter("form-data")
    part = AsyncIterablePayload(pieces, content_type="application/vnd.ipld.car")
    part.set_content_disposition("form-data", name="file", filename="title.car")
    form.append_payload(part)
    return form


def _sentence(words: str) -> str:
    """Return somebody else's words on one line, short."""
    return " ".join(words.split())[:200]
