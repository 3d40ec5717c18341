"""What the machine gives a box: disk, keys, descriptors, congestion control, addresses. All of it blocks."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import stat
from collections.abc import Iterable
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import ifaddr

from ...protocol.errors import RemoteError
from .. import yggdrasil
from ..home import KEY_FILE, ROLE_FILE
from ..http.address import is_public, parse_address
from ..overlay import Overlay, is_overlay
from .finding import Finding, bad, ok, warning
from .patient import Patient

LOW_BYTES = 200_000_000
SHARED = IPv4Network("100.64.0.0/10")
"""Addresses of carrier-grade NAT (RFC 6598)."""
DESCRIPTORS = {"node": 1_024, "relay": 8_192, "origin": 4_096}
LEAST_DESCRIPTORS = 256
_BBR = "bbr"
_GB = 1_000_000_000
_TCP = Path("/proc/sys/net/ipv4")


def check_settings(patient: Patient) -> Finding:
    """Say whether the settings can be read."""
    if patient.settings_trouble:
        return bad("settings", patient.settings_trouble, "mend that line; `farcast config check` looks again")
    return ok("settings", "the settings are right")


def check_keys(patient: Patient) -> Finding:
    """Say whether the home's key is there, and whether anybody else can read a secret."""
    home = patient.home
    if not (home / ROLE_FILE).exists():
        return bad(
            "keys",
            f"{home / ROLE_FILE} is missing, so no command starts this box",
            f"write `{patient.role}` into it",
        )
    if not (home / KEY_FILE).exists():
        return bad("keys", f"{home / KEY_FILE} is missing", "bring it back from a backup: it is this box")
    for path in _secrets(home):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            return bad("keys", f"{path} can be read by others (mode {mode:o})", f"chmod 600 {path}")
    if patient.identity is None:
        return bad("keys", f"{home / KEY_FILE} is no key", "bring it back from a backup: it is this box")
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o022:
        return warning("keys", f"{home} can be written to by others (mode {mode:o})", f"chmod 700 {home}")
    return ok("keys", f"this box is {patient.identity.peer_id}, and its secrets are its own")


def check_disk(patient: Patient) -> Finding:
    """Say whether the home can be written to, and whether the disk has what the quota promises."""
    home, quota = patient.home, patient.settings.store.quota_bytes
    draft = home / f".doctor.{os.getpid()}.new"
    try:
        try:
            draft.write_bytes(bytes(4_096))
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        return bad("disk", f"{home} cannot be written to: {error.strerror}", "mend that, or move the home")
    free = shutil.disk_usage(home).free
    if free < LOW_BYTES:
        return bad("disk", f"only {_size(free)} are free at {home}", "make room; without it nothing is kept")
    to_come = max(quota - _held_bytes(home), 0)
    if to_come > free:
        return warning(
            "disk",
            f"blocks may take {_size(to_come)} more, but only {_size(free)} are free at {home}",
            "lower [store] quota_bytes, or make room",
        )
    return ok("disk", f"{_size(free)} are free at {home}, and blocks may take {_size(to_come)} more")


def check_descriptors(patient: Patient) -> Finding:
    """Say whether the box may open as many files and connections as its duty needs."""
    name, needed = "descriptors", DESCRIPTORS[patient.role]
    limit = _limit(patient.pid) if patient.running else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    mend = f"raise it: `ulimit -n {needed}`, or LimitNOFILE={needed} in the service"
    if limit < LEAST_DESCRIPTORS:
        return bad(name, f"the box may open only {limit} files", mend)
    if limit < needed:
        return warning(name, f"the box may open {limit} files; busy ones of its kind need {needed}", mend)
    return ok(name, f"the box may open {limit} files")


def check_congestion(patient: Patient) -> Finding:
    """Say which congestion control this box's blocks leave with."""
    name = "congestion"
    with socket.socket() as probe:
        default = _controller(probe)
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _BBR.encode())
        except OSError as error:
            refused = error
        else:
            return _with_bbr(patient)
    if patient.role == "node":
        return ok(name, f"this box sends with {default}; only neighbours are sent to")
    sentence = f"blocks leave with {default}, which brings a twentieth over a path that loses 1 %"
    if isinstance(refused, PermissionError):
        allowed = " ".join([*_words("tcp_allowed_congestion_control"), _BBR])
        return warning(
            name,
            f"{sentence}; the kernel has bbr but keeps it for root",
            f'sysctl -w net.ipv4.tcp_allowed_congestion_control="{allowed}"',
        )
    return warning(name, f"{sentence}; the kernel has no bbr", "modprobe tcp_bbr, and load it at every start")


def check_address(patient: Patient) -> Finding:
    """Say from where this box can be reached."""
    name, announced = "address", patient.settings.network.announce
    allowed = patient.settings.network.allow_private
    for text in announced:
        private = _is_private_literal(text)
        if private and not allowed:
            return bad(
                name,
                f"[network] announce names {text}, which nobody outside can dial",
                "announce the router's public address, and forward the port to this box",
            )
    kinds = {_kind(host) for host in _hosts()}
    said = f"this machine has {_list(kinds)} addresses"
    if announced:
        return ok(name, f"{said} and announces {', '.join(announced)}")
    if "public" in kinds or allowed:
        return ok(name, said)
    if patient.role == "node":
        return ok(name, f"{said}; a viewer's node needs no way in")
    mend = 'forward TCP and UDP to this box and set [network] announce = ["your.name:7433"]'
    if "carrier-grade" in kinds:
        return bad(name, f"{said}: its provider shares one between customers, so no port can be opened", mend)
    return warning(name, f"{said}: nobody outside reaches it unless the router lets them in", mend)


def check_overlay(patient: Patient) -> Finding:
    """Say whether Yggdrasil runs here, reaches anybody, and leads to a relay."""
    name, network = "overlay", patient.settings.network
    own = Overlay().addresses
    told = yggdrasil.ask(network.yggdrasil, evident=bool(own))
    if is_overlay(told.address) and told.address not in own and yggdrasil.bindable(told.address):
        own.insert(0, told.address)
    if not own:
        return _no_overlay(name, told)
    said = f"this machine is {own[0]} in Yggdrasil"
    if told.peers == 0:
        mend = "name a peer in its configuration (Peers), or let MulticastInterfaces find some"
        return warning(name, f"{said}, which has no peers, so it reaches nobody", mend)
    note = f" ({told.trouble}; its interface tells enough)" if told.trouble else ""
    if patient.role != "relay" or not network.overlay:
        return ok(name, said + note)
    if Overlay.serves(own, patient.settings.listen.host):
        return ok(name, f"this relay is reached at {own[0]} in Yggdrasil too{note}")
    return warning(
        name,
        f"{said}, but the relay listens on IPv4 alone",
        'set [listen] host = "::" to be reached there too, or [network] overlay = false',
    )


def _no_overlay(name: str, told: yggdrasil.Told) -> Finding:
    """Say why this machine has no address in Yggdrasil."""
    if told.trouble:
        return warning(name, told.trouble, "add this user to that socket's group, or set [network] yggdrasil")
    if not is_overlay(told.address):
        return ok(name, "no Yggdrasil runs here; nothing needs it")
    return warning(
        name,
        f"Yggdrasil runs as {told.address}, but this machine does not have that address, so nobody reaches "
        "this box by it",
        "let it make an interface (IfName in its configuration), or run it where the box runs",
    )


def _with_bbr(patient: Patient) -> Finding:
    if os.geteuid() == 0 and _BBR not in _words("tcp_allowed_congestion_control") and patient.role != "node":
        return ok(
            "congestion",
            "blocks leave with bbr as long as the box runs as root; without root the kernel's "
            "net.ipv4.tcp_allowed_congestion_control must list bbr",
        )
    return ok("congestion", "blocks leave with bbr")


def _secrets(home: Path) -> Iterable[Path]:
    for path in (home / KEY_FILE, home / "token", home / "admin.json", *sorted((home / "keys").glob("*"))):
        if path.is_file():
            yield path


def _held_bytes(home: Path) -> int:
    """Return what blocks take on the disk by the store's index; 0 where it cannot be asked now."""
    try:
        with closing(sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True, timeout=1)) as index:
            return int(index.execute("SELECT coalesce(sum(size), 0) FROM block").fetchone()[0])
    except sqlite3.Error:
        return 0


def _limit(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    except (OSError, ValueError):
        pass  # another system, another user's process, or no limit at all
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _controller(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def _words(key: str) -> list[str]:
    try:
        return (_TCP / key).read_text().split()
    except OSError:
        return []


def _hosts() -> list[str]:
    found = [
        ip.ip if isinstance(ip.ip, str) else ip.ip[0] for each in ifaddr.get_adapters() for ip in each.ips
    ]
    return [host for host in found if not ip_address(host).is_loopback and not ip_address(host).is_link_local]


def _kind(host: str) -> str:
    address = ip_address(host)
    if isinstance(address, IPv4Address) and address in SHARED:
        return "carrier-grade"
    return "public" if is_public(host) else "private"


def _list(kinds: set[str]) -> str:
    return " and ".join(sorted(kinds)) or "no"


def _is_private_literal(announced: str) -> bool:
    try:
        host = parse_address(announced.removeprefix("https://")).host
        ip_address(host)
    except (RemoteError, ValueError):
        return False  # a name is judged by whoever resolves it
    return not (is_public(host) or is_overlay(host))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _GB:.1f} GB" if size_bytes >= _GB else f"{size_bytes * 1_000 // _GB} MB"
