"""RaptorQ (RFC 6330): any K symbols out of endlessly many give a generation back.

The ``raptorq`` library is imported only here and only when used. Its packets begin with the FEC
payload id; a packet shorter than that or with a wrong block number makes it panic with a
``BaseException``, so the receiver checks both before and catches it nevertheless.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from ..protocol.errors import UsageError


class SymbolDecoder(Protocol):
    """Collects the symbols of one generation."""

    def decode(self, packet: bytes) -> bytes | None:
        """Take FEC id and symbol; return the whole once it can be rebuilt."""
        ...


class Fec(Protocol):
    """A forward error correction scheme for whole generations."""

    def encode(self, data: bytes, symbol_bytes: int, repair: int) -> list[bytes]:
        """Return all source symbols of ``data`` and ``repair`` more, each after its FEC id."""
        ...

    def decoder(self, length: int, symbol_bytes: int) -> SymbolDecoder:
        """Return a fresh decoder for ``length`` bytes."""
        ...


class _Encoder(Protocol):
    def get_encoded_packets(self, repair: int, /) -> list[bytes]: ...


class _EncoderMaker(Protocol):
    def with_defaults(self, data: bytes, symbol_bytes: int, /) -> _Encoder: ...


class _DecoderMaker(Protocol):
    def with_defaults(self, length: int, symbol_bytes: int, /) -> SymbolDecoder: ...


class _Library(Protocol):
    @property
    def Encoder(self) -> _EncoderMaker: ...  # noqa: N802 - the library's name
    @property
    def Decoder(self) -> _DecoderMaker: ...  # noqa: N802 - the library's name


class RaptorQ:
    """The ``raptorq`` library behind ``Fec``; blocking, up to 0.3 s for a 16 MB generation.

    Raises ``UsageError`` where the library is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library = cast("_Library", importlib.import_module("raptorq"))
        except ImportError as error:
            msg = "the satellite carousel needs the package raptorq; `pip install raptorq` brings it"
            raise UsageError(msg, reason="no_raptorq") from error

    def encode(self, data: bytes, symbol_bytes: int, repair: int) -> list[bytes]:
        """Return all source symbols of ``data`` and ``repair`` more, each after its FEC id."""
        return self._library.Encoder.with_defaults(data, symbol_bytes).get_encoded_packets(repair)

    def decoder(self, length: int, symbol_bytes: int) -> SymbolDecoder:
        """Return a fresh decoder for ``length`` bytes."""
        return self._library.Decoder.with_defaults(length, symbol_bytes)
