"""Can a box be reached? One handshake by TLS and one by QUIC, the key checked, nothing asked."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable

from ...protocol.errors import FarcastError
from .quic.channel import Channel
from .quic.session import Address
from .tcp import KeyMismatchError, KeyPin


async def by_tls(address: Address, key: bytes, timeout_s: float) -> str:
    """Return why a TLS handshake with the owner of ``key`` fails at a resolved address; empty if not."""
    return await _why(_handshake(address, key, _unverified()), timeout_s, "TCP")


async def by_web(address: Address, host: str, timeout_s: float) -> str:
    """Return why a TLS handshake with ``host``'s public certificate fails; empty if not."""
    return await _why(_handshake(address, None, ssl.create_default_context(), host), timeout_s, "TCP")


async def by_quic(family: int, address: Address, key: bytes, timeout_s: float) -> str:
    """Return why a QUIC handshake with the owner of ``key`` fails; empty if it does not."""

    async def shake() -> None:
        (await Channel.open(family, address, key)).close()

    return await _why(shake(), timeout_s, "UDP")


async def _handshake(
    address: Address, key: bytes | None, context: ssl.SSLContext, host: str | None = None
) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol, str(address[0]), int(address[1]), ssl=context, server_hostname=host or ""
    )
    try:
        if key is not None:
            KeyPin(key).check(transport)
    finally:
        transport.abort()


async def _why(shake: Awaitable[None], timeout_s: float, protocol: str) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            await shake
    except KeyMismatchError as error:
        return str(error.reason)
    except FarcastError as error:
        return str(error)
    except TimeoutError:
        return f"{protocol}: no answer within {timeout_s:g} s"
    except ssl.SSLError as error:
        return f"{protocol}: something else answers there ({error.reason or 'no TLS'})"
    except OSError as error:
        return f"{protocol}: {os.strerror(error.errno) if error.errno else error}"
    return ""


def _unverified() -> ssl.SSLContext:
    """Return a client's context that checks no certificate: the key in it is checked instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
