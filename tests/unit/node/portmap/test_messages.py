import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.portmap import natpmp, pcp, upnp
from farcast.node.portmap.lease import Carrier, Wish
from farcast.protocol.errors import RefusedError, RemoteError

WISH = Wish(Carrier.UDP, 7_433, 7_433)
ports = st.integers(1, 65_535)
seconds = st.integers(0, 2**32 - 1)
addresses = st.ip_addresses(v=4).map(str)


@given(st.sampled_from(Carrier), ports, ports, seconds, addresses)
def test_a_nat_pmp_router_is_understood(
    carrier: Carrier, internal: int, external: int, ttl_s: int, host: str
) -> None:
    request = natpmp.ask_mapping(Wish(carrier, internal, external), 7_200)
    version, opcode, _, asked_internal, asked_external, asked_s = struct.unpack("!BBHHHI", request)
    assert (version, asked_internal, asked_external, asked_s) == (0, internal, external, 7_200)
    answer = struct.pack("!BBHIHHI", 0, 128 + opcode, 0, 9, internal, external, ttl_s)
    assert natpmp.read_mapping(answer, carrier) == (internal, external, ttl_s)
    packed = bytes(int(part) for part in host.split("."))
    assert natpmp.read_address(struct.pack("!BBHI4s", 0, 128, 0, 9, packed)) == host


def test_deleting_asks_for_no_port() -> None:
    assert natpmp.ask_mapping(WISH, 0)[6:] == bytes(6)
    assert pcp.ask_mapping(WISH, "192.168.1.20", bytes(12), 0)[4:8] == bytes(4)


@given(st.sampled_from(Carrier), ports, ports, seconds, addresses, st.binary(min_size=12, max_size=12))
def test_a_pcp_router_is_understood(
    carrier: Carrier, internal: int, external: int, ttl_s: int, host: str, nonce: bytes
) -> None:
    request = pcp.ask_mapping(Wish(carrier, internal, external), "192.168.1.20", nonce, 7_200)
    assert len(request) == 60
    assert request[8:24] == bytes(10) + b"\xff\xff" + bytes((192, 168, 1, 20))
    outside = bytes(10) + b"\xff\xff" + bytes(int(part) for part in host.split("."))
    answer = struct.pack("!BBBBII12x", 2, 0x81, 0, 0, ttl_s, 5) + request[24:40]
    answer += struct.pack("!HH", internal, external) + outside
    found = pcp.read_mapping(answer)
    assert found == (nonce, carrier, internal, external, host, ttl_s)


def test_refusals_say_why() -> None:
    with pytest.raises(RefusedError, match="out of room") as refused:
        natpmp.read_mapping(struct.pack("!BBHIHHI", 0, 129, 4, 0, 0, 0, 0), Carrier.UDP)
    assert refused.value.reason == "router_refused"
    with pytest.raises(RefusedError, match="version 2") as old:
        pcp.read_mapping(struct.pack("!BBHI", 0, 129, 1, 0))
    assert old.value.reason == "unsupported_version"
    with pytest.raises(RefusedError, match="switched port mapping off"):
        pcp.read_mapping(struct.pack("!BBBBII12x", 2, 0x81, 0, 2, 0, 0))


@given(st.binary(max_size=80) | st.binary(min_size=56, max_size=64).map(lambda rest: b"\x02\x81\0\0" + rest))
def test_any_bytes_are_an_answer_or_a_remote_error(data: bytes) -> None:
    for read in (
        lambda: pcp.read_mapping(data),
        lambda: natpmp.read_address(data),
        lambda: natpmp.read_mapping(data, Carrier.TCP),
    ):
        try:
            read()
        except RemoteError:
            continue


DEVICE = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><!-- a comment -->{base}<device><deviceList><device>
<serviceList><service><serviceType>{kind}</serviceType><controlURL>{control}</controlURL></service></serviceList>
</device></deviceList></device></root>"""
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"
AT = "http://192.168.1.1:5000/root.xml"


def _device(control: str, *, kind: str = WAN, base: str = "") -> bytes:
    return DEVICE.format(control=control, kind=kind, base=base).encode()


def test_the_connection_service_is_found_on_the_device_itself() -> None:
    assert upnp.read_service(_device("/ctl"), AT) == ("http://192.168.1.1:5000/ctl", WAN)
    base = "<URLBase>http://192.168.1.1:99/</URLBase>"
    assert upnp.read_service(_device("ctl", base=base), AT).control == "http://192.168.1.1:99/ctl"


@pytest.mark.parametrize(
    "description",
    [
        _device("http://192.168.1.2/ctl"),
        _device("https://192.168.1.1/ctl"),
        _device("/ctl", kind="urn:other"),
        _device("/ctl", base="<URLBase>http://example.org/</URLBase>"),
    ],
)
def test_a_service_elsewhere_is_none(description: bytes) -> None:
    with pytest.raises(RemoteError, match="offers no port mapping"):
        upnp.read_service(description, AT)


def test_entities_are_never_expanded() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    with pytest.raises(RemoteError, match="document type"):
        upnp.read_service(bomb, AT)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: f"<a>{text}</a>".encode()))
def test_any_description_is_read_or_a_remote_error(data: bytes) -> None:
    for read in (lambda: upnp.read_service(data, AT), lambda: upnp.read_answer(200, data, "x")):
        try:
            read()
        except RemoteError:
            continue


def test_only_a_location_on_the_sender_is_followed() -> None:
    head = b"HTTP/1.1 200 OK\r\nST: x\r\nLocation: "
    assert upnp.read_location(head + AT.encode() + b"\r\n\r\n", "192.168.1.1") == AT
    assert upnp.read_location(head + AT.encode() + b"\r\n\r\n", "192.168.1.9") is None
    assert upnp.read_location(b"NOTIFY * HTTP/1.1\r\nLocation: " + AT.encode(), "192.168.1.1") is None


def test_a_soap_call_is_escaped_and_its_errors_have_numbers() -> None:
    headers, body = upnp.call(WAN, "AddPortMapping", {"NewRemoteHost": "<&>"})
    assert headers["soapaction"] == f'"{WAN}#AddPortMapping"'
    assert b"<NewRemoteHost>&lt;&amp;&gt;</NewRemoteHost>" in body
    fault = (
        b"<Envelope><Body><Fault><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></Fault>"
    )
    with pytest.raises(upnp.SoapError) as refused:
        upnp.read_answer(500, fault + b"</Body></Envelope>")
    assert refused.value.code == upnp.CONFLICT
