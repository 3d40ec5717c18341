"""Looks at the local network: what this machine hears of itself and of others. All of it blocks.

A datagram that no box takes for a presence goes to the group, a question to those who answer mDNS
(RFC 6762 section 6.7: to whoever asks from another port they answer alone). Nothing else is sent.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ifaddr
import msgspec

from ...mesh.child.environment import passed_on
from ..admin import call_admin
from .finding import Finding, ok
from .lan import Seen, judge_filter, judge_ipv6, judge_lan
from .patient import Patient

LISTEN_S = 2.6
"""A box that plays something speaks every two seconds."""
ALONE_S = 0.5
"""How long this machine may take to hear itself."""
DATAGRAM_BYTES = 2_048
LINKS_LIMIT = 8
RULES_LIMIT_BYTES = 1 << 20
RULES_S = 2.0
MDNS = ("224.0.0.251", 5353)
_QUESTIONS = ("_farcast._udp.local", "_services._dns-sd._udp.local")
_REACHABLE = 0x2
"""ATF_COM of ``arp(7)``: the neighbour has answered."""


@dataclass
class _Ear:
    """One interface while it is listened to."""

    name: str
    address: str
    wireless: bool
    known: int
    refused: str = ""
    echoed: bool = False
    heard: set[str] = field(default_factory=set[str])
    sockets: list[socket.socket] = field(default_factory=list[socket.socket])

    def seen(self) -> Seen:
        """Return what was seen."""
        return Seen(self.name, self.wireless, self.refused, self.echoed, len(self.heard), self.known)


def check_lan(patient: Patient) -> Finding:
    """Say whether neighbours can be found; it listens for a few seconds."""
    mesh = patient.settings.mesh
    if patient.role != "node" or not mesh.enabled:
        return ok("lan", "this box looks for no neighbours")
    neighbours = _neighbours(patient)
    seen = [] if neighbours else look(patient.settings.network.interfaces, mesh.group, mesh.port)
    return judge_lan(seen, neighbours, mesh.port)


def check_ipv6(patient: Patient) -> Finding:
    """Say whether this machine has IPv6."""
    del patient
    return judge_ipv6([address for _, address in _addresses()])


def check_firewall(patient: Patient) -> Finding:
    """Say whether the machine's own packet filter keeps others from this box; only root may read it."""
    port = patient.port or patient.settings.listen.port
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        return ok(
            "firewall", "the rules of this machine's firewall were not looked at: that needs root and nft"
        )
    try:
        done = subprocess.run(
            [program, "list", "ruleset"],
            capture_output=True,
            timeout=RULES_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=passed_on(),
        )
    except (OSError, subprocess.SubprocessError):
        return ok("firewall", "the rules of this machine's firewall could not be read: nft does not answer")
    rules = done.stdout[:RULES_LIMIT_BYTES].decode("utf-8", "replace")
    return judge_filter(rules, port, patient.settings.mesh.port)


def look(only: Iterable[str], group: str, port: int) -> list[Seen]:
    """Speak once and listen on every interface that is up, loopback apart, or on those that are named."""
    named, own = frozenset(only), {address for _, address in _addresses()}
    ears: list[_Ear] = []
    for name, address in _addresses():
        if ":" in address or (address not in named if named else address.startswith("127.")):
            continue
        if len(ears) < LINKS_LIMIT:
            wireless = Path("/sys/class/net", name, "wireless").exists()
            ears.append(_Ear(name, address, wireless, _known(name, own)))
    word = b"farcast doctor " + secrets.token_bytes(8)
    try:
        for ear in ears:
            _speak(ear, group, port, word)
        _listen(ears, own, word)
    finally:
        for ear in ears:
            for sock in ear.sockets:
                sock.close()
    return [ear.seen() for ear in ears]


def _speak(ear: _Ear, group: str, port: int, word: bytes) -> None:
    local = socket.inet_aton(ear.address)
    try:
        hears = _opened(ear)
        hears.bind((group, port))
        hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + local)
        says = _opened(ear)
        says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
        says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        says.bind((ear.address, 0))
        says.sendto(word, (group, port))
    except OSError as error:
        ear.refused = error.strerror or str(error)
        return
    with suppress(OSError):  # mDNS is a help, not what is asked about
        says.sendto(_question(), MDNS)


def _listen(ears: list[_Ear], own: set[str], word: bytes) -> None:
    whose = {sock: ear for ear in ears for sock in ear.sockets}
    begun = time.monotonic()
    while whose and (left_s := begun + LISTEN_S - time.monotonic()) > 0:
        waiting = [ear for ear in ears if not ear.refused]
        if waiting and all(ear.echoed and ear.heard for ear in waiting):
            return
        if time.monotonic() > begun + ALONE_S and not any(ear.echoed for ear in waiting):
            return  # who does not hear itself hears nobody
        for sock in select.select([*whose], [], [], min(left_s, ALONE_S))[0]:
            with suppress(OSError):
                data, sender = sock.recvfrom(DATAGRAM_BYTES)
                if data == word and sender[0] in own:
                    whose[sock].echoed |= sender[0] == whose[sock].address
                elif sender[0] not in own:
                    whose[sock].heard.add(sender[0])


def _opened(ear: _Ear) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.sockets.append(sock)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _question() -> bytes:
    """Return an mDNS query for the services there are (RFC 1035 section 4.1, PTR, class IN)."""
    parts = [struct.pack(">6H", 0, 0, len(_QUESTIONS), 0, 0, 0)]
    for name in _QUESTIONS:
        parts += [bytes([len(label)]) + label.encode() for label in name.split(".")]
        parts.append(b"\0" + struct.pack(">2H", 12, 1))
    return b"".join(parts)


def _addresses() -> list[tuple[str, str]]:
    """Return (interface, address) of everything this machine has."""
    return [
        (adapter.name, found.ip if isinstance(found.ip, str) else found.ip[0].partition("%")[0])
        for adapter in ifaddr.get_adapters()
        for found in adapter.ips
    ]


def _known(interface: str, own: set[str]) -> int:
    """Count the machines that answered on an interface lately, its routers apart (``/proc/net/arp``)."""
    routers = _routers()
    try:
        lines = Path("/proc/net/arp").read_text("ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return 0
    rows = [line.split() for line in lines]
    found = {
        row[0]
        for row in rows
        if len(row) >= 6 and row[5] == interface and int(row[2], 16) & _REACHABLE  # noqa: PLR2004 - its columns
    }
    return len(found - own - routers)


def _routers() -> set[str]:
    """Return the IPv4 addresses of the gateways (``/proc/net/route``: hex, in the machine's byte order)."""
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]]
        return {socket.inet_ntoa(struct.pack("=I", int(row[2], 16))) for row in rows if row[2] != "00000000"}
    except (OSError, ValueError, IndexError, UnicodeDecodeError):
        return set()


class _Status(msgspec.Struct, frozen=True):
    neighbours: int = 0


def _neighbours(patient: Patient) -> int:
    """Return how many neighbours the running box knows; 0 where it does not run or say."""
    if not patient.running:
        return 0
    try:
        return msgspec.convert(
            call_admin(patient.home, "GET", "/api/status", timeout_s=2.0), _Status
        ).neighbours
    except Exception:  # noqa: BLE001 - why it does not answer is another finding
        return 0
