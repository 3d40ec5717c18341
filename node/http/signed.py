"""Handlers for signed requests: the client proves its key before the handler sees anything."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from time import time

from ...protocol.errors import RefusedError
from .exchange import Answer, Exchange, Handler
from .nonces import NOISE_BYTES, NonceBook

SignedHandler = Callable[[Exchange, bytes], Awaitable[Answer]]
"""Called with the exchange (its body already read) and the key that signed it."""

_UNAUTHORIZED = 401


def signed(book: NonceBook, handler: SignedHandler, *, limit_bytes: int) -> Handler:
    """Return a handler that lets ``handler`` see only requests signed over a nonce of ``book``.

    Any other gets a 401 with a fresh nonce; bodies are bounded by ``limit_bytes``.
    """

    async def handle(exchange: Exchange) -> Answer:
        if "authorization" not in exchange.headers:
            return book.challenge(time(), secrets.token_bytes(NOISE_BYTES))
        body = await exchange.read(limit_bytes)
        try:
            key = book.check(exchange, body, time())
        except RefusedError as error:
            if error.status != _UNAUTHORIZED:
                raise
            answer = book.challenge(time(), secrets.token_bytes(NOISE_BYTES))
            told = Answer.problem(_UNAUTHORIZED, "Unauthorized", str(error), reason=error.reason)
            return Answer(_UNAUTHORIZED, {**told.headers, **answer.headers}, told.body)
        return await handler(exchange, key)

    return handle
