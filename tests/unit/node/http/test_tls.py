from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.tls import EXTENSION_OID, make_certificate, peer_key
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, peer_id

ALICE = Identity(b"a" * 32)
DER = ssl.PEM_cert_to_DER_cert(make_certificate(ALICE, 1_800_000_000.0).certificate_pem.decode())

# "Test vectors" 1 and 2 of the libp2p TLS specification: an Ed25519 host key, and an ECDSA one.
SPEC_ED25519 = bytes.fromhex(
    "308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270"
    "32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030"
    "30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d"
    "020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133"
    "1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea37c307a3078060a2b0601040183a25a"
    "0101046a3068042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d"
    "2769db992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde"
    "92a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c"
    "9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a3"
    "1b77"
)
SPEC_ECDSA = bytes.fromhex(
    "308201f63082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270"
    "32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030"
    "30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d"
    "020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133"
    "1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b06010401"
    "83a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f"
    "909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3d"
    "d72a801980d205e8a1ad29f2044730450220064ea8124774caf8f50e57f436aa62350ce652418c019df5d98a3ac666c9"
    "386a022100aa59d704a931b5f72fb9222cb6cc51f954d04a4e2e5450f8805fe8918f71eaae300a06082a8648ce3d0403"
    "0203470030440220799395b0b6c1e940a7e4484705f610ab51ed376f19ff9d7c16757cfbf61b8d4302206205c03fbb0f"
    "95205c779be86581d3e31c01871ad5d1f3435bcf375cb0e5088a"
)


def _certificate(value: bytes, *, signer: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if value:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION_OID, value), critical=False)
    return builder.sign(signer or key, SHA256()).public_bytes(Encoding.DER)


def test_a_certificate_names_the_key_that_vouches_for_it() -> None:
    assert peer_key(DER) == ALICE.key


def test_the_examples_of_the_libp2p_specification_are_read() -> None:
    assert peer_id(peer_key(SPEC_ED25519)) == "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv"
    with pytest.raises(RemoteError) as caught:
        peer_key(SPEC_ECDSA)
    assert caught.value.reason == "malformed"


def test_a_proof_copied_from_another_certificate_is_refused() -> None:
    stolen = x509.load_der_x509_certificate(DER).extensions.get_extension_for_oid(EXTENSION_OID).value
    assert isinstance(stolen, x509.UnrecognizedExtension)
    with pytest.raises(RemoteError) as caught:
        peer_key(_certificate(stolen.value))
    assert caught.value.reason == "wrong_key"


def test_a_certificate_signed_by_another_key_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        peer_key(_certificate(b"\x30\x00", signer=ec.generate_private_key(ec.SECP256R1())))
    assert caught.value.reason == "wrong_key"


@pytest.mark.parametrize(
    "value", [b"", b"\x30\x00", b"\x31\x00", b"\x30\x81\x01\x00", b"\x30\x05\x04\x01a\x04\x09"]
)
def test_a_certificate_without_a_proper_proof_is_malformed(value: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        peer_key(_certificate(value))
    assert caught.value.reason == "malformed"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_raise_remote_error_only(data: bytes) -> None:
    with pytest.raises(RemoteError):
        peer_key(data)


@settings(deadline=None)
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_one_changed_byte_never_names_another_key(at: int, flip: int) -> None:
    data = bytearray(DER)
    data[at] ^= flip
    with suppress(RemoteError):
        assert peer_key(bytes(data)) == ALICE.key


def test_the_private_key_is_not_shown() -> None:
    certificate = make_certificate(ALICE, 0.0)
    assert "KEY" not in repr(certificate)
    public = x509.load_pem_x509_certificate(certificate.certificate_pem).public_key()
    assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) not in DER
