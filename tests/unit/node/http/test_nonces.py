from __future__ import annotations

import pytest

from farcast.node.http.exchange import Exchange
from farcast.node.http.nonces import TTL_S, NonceBook
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.request import authorization, read_challenge

BOX = Identity(b"n" * 32)
DEVICE = Identity(b"m" * 32)
NOW = 1_800_000_000.0
BODY = b"body"


async def _read(_: int) -> bytes:
    return BODY


def _exchange(value: str, method: str = "POST", target: str = "/v1/tickets?x=1") -> Exchange:
    headers = {"host": "a", "authorization": value} if value else {"host": "a"}
    return Exchange.of(method, target, headers, peer="", secure=True, reader=_read)


def _nonce(book: NonceBook, now: float = NOW, noise: bytes = b"r" * 16) -> bytes:
    answer = book.challenge(now, noise)
    assert answer.status == 401
    return read_challenge(answer.headers["www-authenticate"])


def _sign(
    nonce: bytes, *, body: bytes = BODY, path: str = "/v1/tickets?x=1", audience: bytes = BOX.key
) -> str:
    return authorization(
        DEVICE, method="POST", path=path, body=body, nonce=nonce, audience=audience, at_ms=int(NOW * 1000)
    )


def _reason(book: NonceBook, exchange: Exchange, now: float = NOW, body: bytes = BODY) -> str:
    with pytest.raises(RefusedError) as caught:
        book.check(exchange, body, now)
    return caught.value.reason


def test_a_signed_request_names_its_key_once() -> None:
    book = NonceBook(b"s" * 32, BOX.key)
    exchange = _exchange(_sign(_nonce(book)))
    assert book.check(exchange, BODY, NOW + 1) == DEVICE.key
    assert _reason(book, exchange) == "used_nonce"


def test_a_name_only_client_may_leave_the_audience_empty() -> None:
    book = NonceBook(b"s" * 32, BOX.key)
    assert book.check(_exchange(_sign(_nonce(book), audience=b"")), BODY, NOW) == DEVICE.key


def test_a_nonce_lives_a_minute_and_is_this_process_s_own() -> None:
    book, other = NonceBook(b"s" * 32, BOX.key), NonceBook(b"t" * 32, BOX.key)
    nonce = _nonce(book)
    assert _reason(book, _exchange(_sign(nonce)), NOW + TTL_S) == "stale_nonce"
    assert _reason(other, _exchange(_sign(nonce))) == "stale_nonce"
    forged = (int(NOW) + 999).to_bytes(6, "big") + nonce[6:]
    assert _reason(book, _exchange(_sign(forged))) == "stale_nonce"
    assert book.check(_exchange(_sign(nonce)), BODY, NOW + TTL_S - 1) == DEVICE.key


def test_a_signature_holds_for_one_request_to_one_box() -> None:
    book = NonceBook(b"s" * 32, BOX.key)
    nonce = _nonce(book)
    assert _reason(book, _exchange(_sign(nonce, body=b"other"))) == "wrong_request"
    assert _reason(book, _exchange(_sign(nonce, path="/v1/keys"))) == "wrong_request"
    assert _reason(book, _exchange(_sign(nonce), method="GET")) == "wrong_request"
    assert _reason(book, _exchange(_sign(nonce, audience=DEVICE.key))) == "wrong_request"
    assert _reason(book, _exchange(_sign(nonce)), body=b"other") == "wrong_request"
    assert book.check(_exchange(_sign(nonce)), BODY, NOW) == DEVICE.key


@pytest.mark.parametrize("value", ["", "Basic abc", "Farcast", "Farcast ====", "Farcast " + "A" * 40])
def test_anything_else_is_no_proof(value: str) -> None:
    book = NonceBook(b"s" * 32, BOX.key)
    assert _reason(book, _exchange(value)) in ("unsigned", "malformed", "bad_signature")


def test_used_nonces_are_bounded_and_forgotten_when_they_expire() -> None:
    book = NonceBook(b"s" * 32, BOX.key, limit=2)
    for noise in (b"1" * 16, b"2" * 16):
        book.check(_exchange(_sign(_nonce(book, noise=noise))), BODY, NOW)
    third = _exchange(_sign(_nonce(book, now=NOW + 30, noise=b"3" * 16)))
    assert _reason(book, third, NOW + 30) == "busy"
    assert book.check(third, BODY, NOW + TTL_S) == DEVICE.key
    assert len(book) == 1
