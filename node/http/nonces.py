"""Nonces of signed requests: single use, short-lived, and free until somebody proves a key (sans-IO)."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict

from ...protocol.errors import RefusedError, RemoteError
from ...protocol.request import RequestProof, challenge, open_authorization
from .exchange import Answer, Exchange

TTL_S = 60
NOISE_BYTES = 16
USED_LIMIT = 65_536
_TAG_BYTES = 16
_UNAUTHORIZED = 401


class NonceBook:
    """The nonces of one process.

    A nonce is randomness and an expiry under a MAC of ours, so offering one costs no memory and a
    flood of requests displaces nobody's; only used ones are remembered, until they expire.
    """

    def __init__(self, secret: bytes, audience: bytes, *, limit: int = USED_LIMIT) -> None:
        """Sign nonces with ``secret``; ``audience`` is this box's Ed25519 key."""
        self._secret = secret
        self._audience = audience
        self._limit = limit
        self._used: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many used nonces are remembered."""
        return len(self._used)

    def challenge(self, now: float, noise: bytes) -> Answer:
        """Return the 401 that offers a nonce made of ``noise``, ``NOISE_BYTES`` of fresh randomness."""
        head = (int(now) + TTL_S).to_bytes(6, "big") + noise[:NOISE_BYTES]
        answer = Answer.problem(
            _UNAUTHORIZED, "Unauthorized", "sign this request over the nonce", reason="nonce"
        )
        answer.headers["www-authenticate"] = challenge(head + self._tag(head))
        answer.headers["cache-control"] = "no-store"
        return answer

    def check(self, exchange: Exchange, body: bytes, now: float) -> bytes:
        """Return the key that signed ``exchange`` and ``body``; its nonce is then used up.

        Raises:
            RefusedError: 401 with ``unsigned``, ``stale_nonce``, ``used_nonce``, ``bad_signature``
                or ``wrong_request``; 503 while more requests than can be remembered are signed.

        """
        value = exchange.headers.get("authorization", "")
        if not value:
            raise _refused("this request must be signed", "unsigned")
        try:
            proof = open_authorization(value)
        except RemoteError as error:
            raise _refused(str(error), error.reason) from error
        self._check_request(proof, exchange, body)
        self._use(proof.nonce, now)
        return proof.key

    def _check_request(self, proof: RequestProof, exchange: Exchange, body: bytes) -> None:
        same = (proof.method, proof.path) == (exchange.method, exchange.target)
        same = same and hmac.compare_digest(proof.body_hash, hashlib.sha256(body).digest())
        if not same or proof.audience not in (self._audience, b""):
            raise _refused("a signature over another request", "wrong_request")

    def _use(self, nonce: bytes, now: float) -> None:
        head, tag = nonce[:-_TAG_BYTES], nonce[-_TAG_BYTES:]
        expires = int.from_bytes(head[:6], "big")
        if not hmac.compare_digest(tag, self._tag(head)) or not now < expires:
            raise _refused("a nonce that is not ours or has expired", "stale_nonce")
        while self._used and next(iter(self._used.values())) <= now:
            self._used.popitem(last=False)
        if nonce in self._used:
            raise _refused("a nonce that was used before", "used_nonce")
        if len(self._used) >= self._limit:
            message = "too many signed requests at once"
            raise RefusedError(message, status=503, retry_after_s=TTL_S, reason="busy")
        self._used[nonce] = expires

    def _tag(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, b"farcast/nonce/v1\0" + head, hashlib.sha256)[:_TAG_BYTES]


def _refused(message: str, reason: str) -> RefusedError:
    return RefusedError(message, status=_UNAUTHORIZED, reason=reason)
