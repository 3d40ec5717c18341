"""UPnP-IGD messages: SSDP search, device description, and the three SOAP calls a mapping needs.

UPnP Device Architecture 1.1 (sections 1.3, 2, 3) and the WANIPConnection:1 and :2 service documents.
What a device says is only believed of itself: every address in it must be the one that answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from ...protocol.errors import RefusedError, RemoteError
from .lease import Carrier, Wish

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

GROUP, PORT = "239.255.255.250", 1_900
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
DESCRIPTION_LIMIT_BYTES = 256 << 10
ANSWER_LIMIT_BYTES = 64 << 10
NAME = "Farcast relay"
ONLY_PERMANENT = 725
CONFLICT = 718
_SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
_LOCATION = re.compile(rb"^location:[ \t]*(http://[!-~]{1,512})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_ELEMENTS = 4_096


class Service(NamedTuple):
    """The connection service of a router: where it takes calls, and its type."""

    control: str
    kind: str


class SoapError(RefusedError):
    """The router says no, by one of UPnP's error numbers."""

    def __init__(self, code: int, text: str) -> None:
        """Keep the number: some of them have a way around."""
        super().__init__(
            f"the router refuses by UPnP: {text or 'no reason'} ({code})", reason="router_refused"
        )
        self.code = code


def search(target: str) -> bytes:
    """Return the M-SEARCH for devices of type ``target``, to be answered within a second."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {GROUP}:{PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {target}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_location(data: bytes, sender: str) -> str | None:
    """Return where a search answer says the description is; None unless that is on ``sender`` itself."""
    if not data.startswith(b"HTTP/1.1 200"):
        return None
    found = _LOCATION.search(data)
    url = found[1].decode("ascii") if found else ""
    return url if url and _host(url) == sender else None


def read_service(description: bytes, location: str) -> Service:
    """Find the connection service in a device description, the newest kind first.

    Raises:
        RemoteError: ``malformed``, or ``no_service`` where the device maps no ports or names another host.

    """
    root = _parse(description)
    base = _text(root, "URLBase") or location
    for kind in _SERVICES:
        for service in root.iter():
            if _tag(service) != "service" or _child(service, "serviceType") != kind:
                continue
            control = urljoin(base, _child(service, "controlURL"))
            if _host(control) == _host(location) and control.startswith("http://"):
                return Service(control, kind)
    raise RemoteError("a router whose UPnP offers no port mapping", reason="no_service")


def call(kind: str, action: str, arguments: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """Return headers and body of one SOAP call."""
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{kind}">{inside}</u:{action}></s:Body></s:Envelope>'
    )
    headers = {"content-type": 'text/xml; charset="utf-8"', "soapaction": f'"{kind}#{action}"'}
    return headers, body.encode()


def add_mapping(wish: Wish, client: str, ttl_s: int) -> dict[str, str]:
    """Return the arguments of ``AddPortMapping``; ``ttl_s`` 0 is a mapping without end."""
    return {
        "NewRemoteHost": "",
        "NewExternalPort": str(wish.external_port),
        "NewProtocol": wish.carrier.name,
        "NewInternalPort": str(wish.internal_port),
        "NewInternalClient": client,
        "NewEnabled": "1",
        "NewPortMappingDescription": NAME,
        "NewLeaseDuration": str(ttl_s),
    }


def delete_mapping(carrier: Carrier, external_port: int) -> dict[str, str]:
    """Return the arguments of ``DeletePortMapping``."""
    return {"NewRemoteHost": "", "NewExternalPort": str(external_port), "NewProtocol": carrier.name}


def read_answer(status: int, data: bytes, name: str = "") -> str:
    """Read a SOAP answer and return its element ``name``, empty where there is none.

    Raises:
        SoapError: the router said no.
        RemoteError: ``malformed``.

    """
    root = _parse(data)
    if status != 200:  # noqa: PLR2004 - OK
        code = _text(root, "errorCode")
        if not (code.isascii() and code.isdigit()):
            raise RemoteError(f"the router answered {status} to a UPnP call", reason="malformed")
        raise SoapError(int(code[:6]), _text(root, "errorDescription")[:200])
    return _text(root, name) if name else ""


def _parse(data: bytes) -> ET.Element:
    from xml.etree import ElementTree as ET  # half a megabyte that a box without such a router does not need

    # without a document type there are no entities to expand, the only known danger of small XML
    lower = data.lower()
    if b"<!doctype" in lower or b"<!entity" in lower or b"\0" in data or len(data) > DESCRIPTION_LIMIT_BYTES:
        raise RemoteError("UPnP XML with a document type, or of absurd size", reason="malformed")
    try:
        root = ET.fromstring(data)  # noqa: S314 - see above
    except (ET.ParseError, ValueError, LookupError) as error:
        raise RemoteError(f"UPnP XML that cannot be read: {error}", reason="malformed") from error
    if sum(1 for _ in root.iter()) > _ELEMENTS:
        raise RemoteError("a UPnP description of absurd size", reason="malformed")
    return root


def _tag(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _child(element: ET.Element, name: str) -> str:
    return next(((each.text or "").strip() for each in element if _tag(each) == name), "")


def _text(root: ET.Element, name: str) -> str:
    return next(((each.text or "").strip() for each in root.iter() if _tag(each) == name), "")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
