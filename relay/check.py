"""``farcast relay check``: what an operator should know before anything is promised to an origin."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import time
from pathlib import Path
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry

from ..node.admin import admin_url, call_admin
from ..node.catalog.join import known_root, read_given
from ..node.catalog.rootfile import Hint
from ..node.home import KEY_FILE, read_identity
from ..node.http.address import parse_address
from ..node.http.dial import HttpDialer
from ..node.http.exchange import Hosts, Router
from ..node.http.listener import Listener
from ..node.http.problem import expect
from ..node.http.tally import HttpMetrics
from ..node.ladder.tiers import address
from ..node.links import Links
from ..node.portmap.mapper import CARRIER_NAT
from ..node.settings import Settings
from ..protocol.codec import encode
from ..protocol.enrol import (
    CHECK_LIMIT_BYTES,
    PADDING_LIMIT_BYTES,
    CheckAnswer,
    CheckRequest,
    open_check_answer,
)
from ..protocol.errors import FarcastError, UsageError
from ..protocol.identity import Identity
from ..protocol.ports import Source, TierName
from .joining import listening_port, outside_of
from .lines import rate, size

Mark = Literal["good", "fair", "bad", "untried"]

DISK_TEST_BYTES = 64 << 20
SLOW_DISK_BYTES_S, GOOD_DISK_BYTES_S = 10e6, 50e6
LEAST_DISK_BYTES = 2 * 10**9
SLOW_BPS, GOOD_BPS = 2e6, 10e6
GOOD_CLOCK_S, WRONG_CLOCK_S = 2.0, 120.0
TIMEOUT_S = 30.0
TRIES = 3


class Finding(NamedTuple):
    """One thing looked at: how it is, in words, and what to do about it (empty: nothing)."""

    name: str
    mark: Mark
    text: str
    mend: str = ""

    @property
    def line(self) -> str:
        """How it is shown below the verdict."""
        mend = f"; {self.mend}" if self.mend else ""
        return f"  {self.name:<11} {self.mark:<8} {self.text}{mend}"


class Checked(NamedTuple):
    """All of it; ``published`` is what ``join`` would show everybody in the origin's directory."""

    findings: list[Finding]
    published: list[str]

    @property
    def ready(self) -> bool:
        """Whether nothing found stands against joining."""
        return not any(finding.mark == "bad" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The one line that is read first."""
        order: list[Mark] = ["bad", "untried", "fair", "good"]
        worst = min(self.findings, key=lambda finding: order.index(finding.mark))
        mend = f"; {worst.mend}" if worst.mend else ""
        match worst.mark:
            case "bad":
                return f"Not ready: {worst.name}: {worst.text}{mend}"
            case "good":
                return "Ready to join"
            case _:
                return f"Ready to join, but {worst.name}: {worst.text}{mend}"


async def check(path: Path, link: str | None) -> Checked:
    """Look at this machine and, with an origin's ``link`` (or root.json), at the way in from outside.

    Raises:
        UsageError: a bad setting or link; ``RemoteError`` where the link's root is not what it says.

    """
    settings = await asyncio.to_thread(_settings, path)
    findings = [*await asyncio.to_thread(look_at_disk, path, settings.store.quota_bytes)]
    if admin_url(path) is not None:  # it listens, and has its port mapped, itself
        found = await asyncio.to_thread(call_admin, path, "GET", "/api/status", role="relay")
        shown = [row["address"] for row in found["reachability"]]
        port = parse_address(shown[0]).port if shown else settings.listen.port
        findings.append(Finding("port", "good", "the relay that runs here has it"))
        findings += await _outside(settings, read_identity(path), link, Door(port, found["nat"], ""))
        return Checked(findings, shown)
    outside = outside_of(settings)
    identity = read_identity(path) if (path / KEY_FILE).exists() else Identity(os.urandom(32))
    listener = Listener(
        Router(Hosts()), lambda _: None, identity, HttpMetrics(CollectorRegistry()),
        host=settings.listen.host, port=listening_port(settings),
    )  # fmt: skip
    try:
        await listener.__aenter__()
    except UsageError as error:
        shown = [address(endpoint) for endpoint in outside.endpoints()]
        return Checked([*findings, Finding("port", "bad", str(error))], shown)
    try:
        findings.append(Finding("port", "good", f"TCP and UDP {listener.port} are free"))
        async with outside.asked():
            endpoints = outside.endpoints()
            door = Door(endpoints[0].port, outside.sentence, outside.trouble)
            findings += await _outside(settings, identity, link, door)
    finally:
        await listener.close(0.5)
    return Checked(findings, [address(endpoint) for endpoint in endpoints])


class Door(NamedTuple):
    """The port the origin is to dial, what the router said of it, and what is wrong with the address."""

    port: int
    sentence: str
    trouble: str


def _settings(path: Path) -> Settings:
    return Settings.load(path if path.is_dir() else None, os.environ)


def look_at_disk(path: Path, quota_bytes: int) -> list[Finding]:
    """Say whether the disk under ``path`` has room for the quota, and how fast it writes. Blocking."""
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    held = sum(file.stat().st_size for file in (path / "blocks").rglob("*") if file.is_file())
    room = Finding("disk", "good", f"{size(free)} free for a quota of {size(quota_bytes)}")
    if free < LEAST_DISK_BYTES:
        room = room._replace(mark="bad", mend="make room, or put the home on another disk")
    elif free + held < quota_bytes:
        room = room._replace(mark="fair", mend="lower [store] quota_bytes")
    try:
        speed = _disk_speed(folder, min(DISK_TEST_BYTES, free // 4))
    except OSError as error:
        return [room, Finding("disk speed", "bad", f"{folder} cannot be written to: {error.strerror}")]
    mark: Mark = "good" if speed >= GOOD_DISK_BYTES_S else "fair" if speed >= SLOW_DISK_BYTES_S else "bad"
    mend = "" if mark == "good" else "a disk this slow holds viewers up; use another"
    return [room, Finding("disk speed", mark, f"{size(int(speed))}/s written", mend)]


def _disk_speed(folder: Path, size_bytes: int) -> float:
    """Return the bytes per second of writing a file and syncing it; nothing of it stays."""
    draft = folder / f".farcast-check.{os.getpid()}"
    chunk = os.urandom(1 << 20)  # what compresses would flatter a file system that does
    try:
        with draft.open("wb") as file:
            began = time.perf_counter()
            for _ in range(max(1, size_bytes >> 20)):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            return file.tell() / (time.perf_counter() - began)
    finally:
        draft.unlink(missing_ok=True)


async def _outside(settings: Settings, identity: Identity, link: str | None, door: Door) -> list[Finding]:
    if link is None:
        return [
            Finding("reachable", "untried", "nobody dialled", "give the origin's link: `relay check LINK`")
        ]
    given = read_given(link)
    async with HttpDialer(allow_private=settings.network.allow_private) as dialer:
        try:
            hint = await known_root(dialer, given)
            asked = await _ask(dialer, hint, identity, door.port)
        except FarcastError as error:
            mend = "is this box online, and is the origin up?"
            return [Finding("origin", "bad", f"it does not answer: {error}", mend)]
    answer, up_bps, down_bps, offset_s = asked
    return [
        *look_at_reach(answer),
        look_at_nat(answer, Links(settings.network.interfaces).addresses(), door),
        look_at_speed(up_bps, down_bps),
        look_at_clock(offset_s),
    ]


async def _ask(
    dialer: HttpDialer, hint: Hint, identity: Identity, number: int
) -> tuple[CheckAnswer, float, float, float]:
    """Ask to be dialled, then measure both ways; the best of some tries counts."""
    failure: FarcastError = UsageError("the origin's root.json names no address")
    for endpoint in hint.endpoints:
        source = Source(TierName.RELAY, hint.name, address(endpoint), hint.box)
        try:
            first, seconds = await _once(dialer, source, CheckRequest(1, identity.key, number, b""))
        except FarcastError as error:
            failure = error
            continue
        offset_s = time.time() - first.at_ms / 1_000 - seconds / 2
        up_bps = down_bps = 0.0
        dialled_s = seconds
        for _ in range(TRIES):
            request = CheckRequest(1, identity.key, number, os.urandom(PADDING_LIMIT_BYTES))
            answer, took_s = await _once(dialer, source, request)
            bits = len(answer.padding) * 8
            read_s = max(answer.read_ms / 1_000, took_s / 10)  # much may be there before it is read
            up_bps = max(up_bps, bits / read_s)
            down_bps = max(down_bps, bits / max(took_s - read_s - dialled_s, took_s / 10))
        return first, up_bps, down_bps, offset_s
    raise failure


async def _once(dialer: HttpDialer, source: Source, request: CheckRequest) -> tuple[CheckAnswer, float]:
    began = time.perf_counter()
    reply = await dialer.request(
        source, "POST", "/v1/relays/check", body=encode(request), limit_bytes=CHECK_LIMIT_BYTES,
        timeout_s=TIMEOUT_S,
    )  # fmt: skip
    return open_check_answer(expect(reply, 200)), time.perf_counter() - began


def look_at_reach(answer: CheckAnswer) -> list[Finding]:
    """Say whether the origin came through to this box."""
    if not answer.tcp and not answer.udp:
        return [Finding("reachable", "good", f"from outside at {answer.seen}, TCP and UDP")]
    if answer.tcp and answer.udp:
        mend = "forward TCP and UDP of the port to this box on the router, and open them in its firewall"
        return [Finding("reachable", "bad", f"not at {answer.seen} ({answer.tcp})", mend)]
    open_way, why = ("UDP", answer.tcp) if answer.tcp else ("TCP", answer.udp)
    mend = f"open {'TCP' if answer.tcp else 'UDP'} too"
    return [Finding("reachable", "fair", f"at {answer.seen} by {open_way} alone ({why})", mend)]


def look_at_nat(answer: CheckAnswer, own: list[str], door: Door) -> Finding:
    """Name what stands between this box and the Internet, with the router's own word where it gave one."""
    reached = not (answer.tcp and answer.udp)
    if answer.seen in own:
        return Finding("address", "good", f"{answer.seen} is this box's own")
    shared = any(ipaddress.ip_address(text) in CARRIER_NAT for text in own)
    if door.trouble or shared:
        text = door.trouble or "carrier-grade NAT: the provider gives one address to many (100.64.0.0/10)"
        mend = "" if door.trouble else "ask the provider for a public address, or use IPv6"
        return Finding("address", "fair" if reached else "bad", text, mend)
    word = f"; {door.sentence}" if door.sentence else ""
    if reached:
        text = f"{answer.seen} is a router's, which forwards the port to this box{word}"
        return Finding("address", "good", text)
    return Finding("address", "fair", f"{answer.seen} is a router's, which forwards nothing here{word}")


def look_at_speed(up_bps: float, down_bps: float) -> Finding:
    """Judge the way up, which viewers get; ``rate`` in words."""
    mark: Mark = "good" if up_bps >= GOOD_BPS else "fair" if up_bps >= SLOW_BPS else "bad"
    mend = "" if mark == "good" else "few viewers at once can be served"
    text = f"about {rate(round(up_bps))} up and {rate(round(down_bps))} down, on one connection to the origin"
    return Finding("speed", mark, text, mend)


def look_at_clock(offset_s: float) -> Finding:
    """Judge the clock: stamps of a relay that is minutes off are refused."""
    off = abs(offset_s)
    mark: Mark = "good" if off <= GOOD_CLOCK_S else "fair" if off < WRONG_CLOCK_S else "bad"
    way = "ahead of" if offset_s > 0 else "behind"
    text = f"{off:.1f} s {way} the origin's" if off >= 1 else "as the origin's"
    return Finding("clock", mark, text, "" if mark == "good" else "let NTP set it (timedatectl set-ntp true)")
