"""Can a box be reached? One handshake by TLS and one by QUIC, the key checked, nothing asked."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence

from ...protocol.errors import FarcastError, RemoteError
from ...protocol.ports import Source
from .address import HostPort, parse_address
from .quic.channel import Channel
from .quic.session import Address
from .tcp import KeyMismatchError, KeyPin

Resolve = Callable[[HostPort], Awaitable[Sequence[tuple[int, Address]]]]


async def by_both(resolve: Resolve, source: Source, timeout_s: float) -> tuple[str, str]:
    """Return why ``source`` is not reached by TLS, and why not by QUIC; empty texts where it is."""
    try:
        where = parse_address(source.address)
        async with asyncio.timeout(timeout_s):
            family, address = (await resolve(where))[0]
    except TimeoutError:
        return (why := f"no address of {source.address} within {timeout_s:g} s", why)
    except RemoteError as error:
        return str(error), str(error)
    tcp, udp = await asyncio.gather(
        by_tls(address, source.key, timeout_s), by_quic(family, address, source.key, timeout_s)
    )
    return tcp, udp


async def by_name(resolve: Resolve, where: HostPort, timeout_s: float) -> str:
    """Return why a host does not show a public certificate of its name; empty where it does."""
    try:
        async with asyncio.timeout(timeout_s):
            _, address = (await resolve(where))[0]
    except TimeoutError:
        return f"no address of {where.host} within {timeout_s:g} s"
    except RemoteError as error:
        return str(error)
    return await by_web(address, where.host, timeout_s)


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
