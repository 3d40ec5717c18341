"""Certificates that carry a box's key: self-signed P-256 with the libp2p TLS extension.

The extension holds the box's Ed25519 public key and its signature over the certificate's own key
(libp2p TLS specification, "Peer Authentication"), so whoever completes a TLS 1.3 or QUIC handshake
with that certificate has been vouched for by that key. Dates and names in the certificate mean nothing:
a box may have no clock, and its name is its key.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from ...protocol.errors import RemoteError
from ...protocol.identity import Identity, verify_raw

EXTENSION_OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
SIGNED_PREFIX = b"libp2p-tls-handshake:"
CERTIFICATE_LIMIT_BYTES = 8 << 10
_KEY_PREFIX = bytes.fromhex("08011220")  # protobuf PublicKey: Type = Ed25519, Data = 32 bytes
_OCTETS = 0x04
_SEQUENCE = 0x30
_LONG_FORM = 0x80


class Certificate(NamedTuple):
    """A certificate and its private key in PEM; the key lives as long as the process."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Show neither."""
        return "Certificate()"


def make_certificate(identity: Identity, now: float) -> Certificate:
    """Make a fresh P-256 key and a certificate by which ``identity`` vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = identity.sign_raw(SIGNED_PREFIX + public)
    extension = _der(_SEQUENCE, _der(_OCTETS, _KEY_PREFIX + identity.key) + _der(_OCTETS, signature))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.peer_id)])
    start = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(days=2))
        .not_valid_after(start + timedelta(days=3_650))
        .add_extension(x509.UnrecognizedExtension(EXTENSION_OID, extension), critical=False)
        .sign(key, SHA256())
    )
    return Certificate(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def peer_key(certificate_der: bytes) -> bytes:
    """Return the Ed25519 key that vouches for a peer's certificate.

    Raises:
        RemoteError: ``malformed`` for bytes that are no such certificate, ``wrong_key`` where a
            signature in it does not hold.

    """
    if len(certificate_der) > CERTIFICATE_LIMIT_BYTES:
        raise _malformed("a certificate that is too large")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        public = certificate.public_key()
        value = certificate.extensions.get_extension_for_oid(EXTENSION_OID).value
    except Exception as error:  # the parser has error types of its own for hostile bytes
        raise _malformed("a certificate without a Farcast key") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(value, x509.UnrecognizedExtension):
        raise _malformed("a certificate that is no P-256 certificate")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RemoteError("a certificate not signed by its own key", reason="wrong_key") from error
    key, signature = _signed_key(value.value)
    signed = SIGNED_PREFIX + public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not verify_raw(key, signed, signature):
        raise RemoteError("a certificate whose key did not sign it", reason="wrong_key")
    return key


def server_context(certificate: Certificate, alpn: Iterable[str] = ()) -> ssl.SSLContext:
    """Return a TLS 1.3 server context for HTTP/1.1, and the names in ``alpn``, with ``certificate``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1", *alpn])
    # the ssl module reads keys from files only: one readable by us alone, gone at once
    with tempfile.TemporaryDirectory(prefix="farcast-tls-") as folder:
        chain = Path(folder) / "chain.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(certificate.key_pem + certificate.certificate_pem)
        context.load_cert_chain(chain)
    return context


def client_context() -> ssl.SSLContext:
    """Return a TLS 1.3 client context that takes any certificate: ``peer_key`` is the check."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _signed_key(data: bytes) -> tuple[bytes, bytes]:
    """Split the DER SignedKey: SEQUENCE of two OCTET STRINGs, nothing around or after."""
    content, rest = _undo(_SEQUENCE, data)
    public, more = _undo(_OCTETS, content)
    signature, end = _undo(_OCTETS, more)
    if rest or end or not public.startswith(_KEY_PREFIX) or len(public) != len(_KEY_PREFIX) + 32:
        raise _malformed("a certificate whose extension names no Ed25519 key")
    return public[len(_KEY_PREFIX) :], signature


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < _LONG_FORM:
        return bytes((tag, length)) + content
    return bytes((tag, 0x81, length)) + content  # nothing here reaches 256 bytes


def _undo(tag: int, data: bytes) -> tuple[bytes, bytes]:
    if len(data) < 2 or data[0] != tag:  # noqa: PLR2004 - tag and length
        raise _malformed("a certificate with a malformed extension")
    length, start = data[1], 2
    if length >= _LONG_FORM:
        if length != _LONG_FORM + 1 or len(data) < 3 or data[2] < _LONG_FORM:  # noqa: PLR2004 - shortest form
            raise _malformed("a certificate with a malformed extension")
        length, start = data[2], 3
    if len(data) < start + length:
        raise _malformed("a certificate with a malformed extension")
    return data[start : start + length], data[start + length :]


def _malformed(message: str) -> RemoteError:
    return RemoteError(message, reason="malformed")
