"""RaptorQ (RFC 6330): any K symbols out of endlessly many give a generation back.

The ``raptorq`` library is imported only here and only when used. Its packets begin with the FEC
payload id; a packet shorter than that or with a wrong block number makes it panic with a
``BaseException``, so the receiver checks both before and what panics nevertheless is a ``RemoteError``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Protocol, cast

from ..protocol.errors import FarcastError, RemoteError, UsageError


class Fec(Protocol):
    """A forward error correction scheme for whole generations."""

    def encode(self, data: bytes, symbol_bytes: int, count: int, skip: int = 0) -> list[bytes]:
        """Return ``count`` symbols from number ``skip`` on, source first, each after its FEC id."""
        ...

    def decode(self, length: int, symbol_bytes: int, symbols: Iterable[bytes]) -> bytes | None:
        """Return the ``length`` bytes that the symbols give, None where they do not suffice."""
        ...


class _Encoder(Protocol):
    def get_encoded_packets(self, repair: int, /) -> list[bytes]: ...


class _EncoderMaker(Protocol):
    def with_defaults(self, data: bytes, symbol_bytes: int, /) -> _Encoder: ...


class _Decoder(Protocol):
    def decode(self, packet: bytes, /) -> bytes | None: ...


class _DecoderMaker(Protocol):
    def with_defaults(self, length: int, symbol_bytes: int, /) -> _Decoder: ...


class _Library(Protocol):
    @property
    def Encoder(self) -> _EncoderMaker: ...  # noqa: N802 - the library's name
    @property
    def Decoder(self) -> _DecoderMaker: ...  # noqa: N802 - the library's name


class RaptorQ:
    """The ``raptorq`` library behind ``Fec``; blocking, up to 0.4 s for a 20 MB generation.

    Raises ``UsageError`` where the library is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library = cast("_Library", importlib.import_module("raptorq"))
        except ImportError as error:
            msg = "the satellite carousel needs the package raptorq; `pip install raptorq` brings it"
            raise UsageError(msg, reason="no_raptorq") from error

    def encode(self, data: bytes, symbol_bytes: int, count: int, skip: int = 0) -> list[bytes]:
        """Return ``count`` symbols of ``data`` from number ``skip`` on, source first, each after its FEC id.

        The library always makes the repair symbols from the first, so ``skip`` costs their time too.
        """
        source = -(-len(data) // symbol_bytes)
        encoder = self._library.Encoder.with_defaults(data, symbol_bytes)
        packets = encoder.get_encoded_packets(max(skip + count - source, 0))
        del encoder  # twice the data, not needed while the list is cut
        del packets[skip + count :], packets[:skip]
        return packets

    def decode(self, length: int, symbol_bytes: int, symbols: Iterable[bytes]) -> bytes | None:
        """Return the ``length`` bytes that the symbols give, None where they do not suffice.

        Every symbol must have its FEC id, block number 0 and the full length; the caller checks that.

        Raises:
            RemoteError: ``panic`` where the library breaks on them.

        """
        try:
            decoder = self._library.Decoder.with_defaults(length, symbol_bytes)
            for symbol in symbols:
                whole = decoder.decode(symbol)
                if whole is not None:
                    return whole
        except BaseException as error:  # the library panics with a BaseException of its own
            if isinstance(error, (KeyboardInterrupt, SystemExit, FarcastError, OSError, MemoryError)):
                raise
            raise RemoteError("symbols that break the decoder", reason="panic") from error
        return None
