"""What a box reaches: its origin by UDP and by TCP, the origin's clock, and its own listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from ...protocol.errors import FarcastError, RemoteError, UnreachableError, UsageError
from ...protocol.ports import Reply, Source
from ..http.address import authority, is_public, parse_address
from ..http.binding import bind_pair
from ..http.quic.channel import Channel
from ..http.tcp import Ask, TcpCarrier
from .apart import apart
from .finding import Finding, bad, ok, warning
from .patient import Patient

PROBE_S = 4.0
ANSWER_LIMIT_BYTES = 64 << 10
CHECKPOINT_BYTES = 98_304
FAST_S, WRONG_S = 10.0, 120.0
"""Seconds a clock may be off before it is worth a word, and before pulses are refused."""
_PATH = "/healthz"
_WELL = ("Ready", "Serving")
_HINTS = {
    "none": "hints are off: this box looks for news at its own pace",
    "http": "hints go by HTTP",
    "p2p": "hints go by HTTP, and by gossip while the box runs",
}

Resolve = Callable[[str, int], Awaitable[list[tuple[int, tuple[str, int]]]]]
"""Resolves a name to (family, socket address), off the event loop and not in its executor."""


class _Gossip(msgspec.Struct):
    state: str
    peers: int
    why: str


class _Hints(msgspec.Struct):
    gossip: _Gossip | None


class Probed(NamedTuple):
    """How one way to the origin answered: its trouble, and the date it sent."""

    trouble: str
    reason: str
    date: str = ""
    where: str = ""


class Origin:
    """Asks the origin once by each carrier, however many findings want to know."""

    def __init__(self, patient: Patient, resolve: Resolve, clock: Callable[[], float]) -> None:
        self._patient = patient
        self._resolve = resolve
        self._clock = clock
        loop = asyncio.get_running_loop()
        self._quic = loop.create_task(self._first(self._by_quic))
        self._tls = loop.create_task(self._first(self._by_tls))

    async def close(self) -> None:
        """Stop what is still under way."""
        for task in (self._quic, self._tls):
            task.cancel()
        await asyncio.gather(self._quic, self._tls, return_exceptions=True)

    async def check_origin(self) -> Finding:
        """Say whether the origin answers, as itself."""
        patient, name = self._patient, "origin"
        if patient.standalone or patient.trust_trouble or not patient.origin:
            return self._no_origin()
        quic, tls = await asyncio.gather(asyncio.shield(self._quic), asyncio.shield(self._tls))
        if not (quic.trouble and tls.trouble):
            by = " and ".join(way for way, one in (("QUIC", quic), ("TLS", tls)) if not one.trouble)
            who = patient.hint.name if patient.hint else "the origin"
            return ok(name, f"{who} answers at {quic.where or tls.where} by {by}")
        if patient.role == "origin":
            return self._own_endpoint(tls)
        if "wrong_key" in (quic.reason, tls.reason):
            return bad(
                name,
                f"somebody else answers where the origin should: {tls.trouble or quic.trouble}",
                "ask the origin's people for its address; this box talks to its key only",
            )
        return bad(
            name,
            f"the origin does not answer: {tls.trouble}",
            "look at this machine's network and firewall; if they are fine the origin is down",
        )

    def _no_origin(self) -> Finding:
        name, patient = "origin", self._patient
        if patient.standalone:
            return ok(name, "a standalone relay follows no origin")
        if patient.trust_trouble:
            return bad(name, patient.trust_trouble, "do what it says, or join again in a new home")
        joining = "farcast relay join LINK" if patient.role == "relay" else "farcast join LINK"
        return bad(name, "this box has joined no origin", f"run `{joining}`")

    def _own_endpoint(self, tls: Probed) -> Finding:
        if not self._patient.running:
            return warning("origin", "this origin does not run, so nobody reaches it", "farcast origin run")
        return warning(
            "origin",
            f"this origin's published address does not answer from here: {tls.trouble}",
            "look from outside too: some routers do not lead a machine back to itself",
        )

    async def check_udp(self) -> Finding:
        """Say whether QUIC gets through."""
        name = "udp"
        if self._patient.standalone:
            return ok(name, "a standalone relay asks nobody")
        quic, tls = await asyncio.gather(asyncio.shield(self._quic), asyncio.shield(self._tls))
        if not quic.trouble:
            return ok(name, "QUIC reaches the origin")
        if tls.trouble:
            return warning(name, "whether UDP passes is not known while no origin answers", "")
        return warning(
            name,
            f"QUIC does not get through ({quic.trouble}); TLS over TCP is used instead",
            "let UDP to the origin's port out of this network's firewall",
        )

    async def check_clock(self) -> Finding:
        """Say how far this clock is from the origin's, or at least that it is not behind the catalog."""
        name = "clock"
        if self._patient.standalone:
            return ok(name, "nothing a standalone relay does depends on its clock")
        tls = await asyncio.shield(self._tls)
        now = self._clock()
        theirs = _seconds(tls.date)
        if theirs is None or self._patient.role == "origin":
            return await apart(lambda: self._by_catalog(now))
        off_s = now - theirs
        ahead = "ahead of" if off_s > 0 else "behind"
        sentence = f"this clock is {_duration(abs(off_s))} {ahead} the origin's"
        mend = "set it: `timedatectl set-ntp true`, or whatever sets clocks here"
        if abs(off_s) > WRONG_S:
            return bad(name, f"{sentence}, so pulses are refused or paid late", mend)
        if abs(off_s) > FAST_S:
            return warning(name, sentence, mend)
        return ok(name, "this clock agrees with the origin's")

    def _by_catalog(self, now: float) -> Finding:
        """Judge the clock by the newest checkpoint: time does not run backwards."""
        try:
            path = self._patient.home / "catalog" / "checkpoint"
            with path.open("rb") as file:
                lines = file.read(CHECKPOINT_BYTES).decode("utf-8", "replace").splitlines()
            made_s = next(int(line[5:]) for line in lines if line.startswith("time ")) / 1_000
        except (OSError, ValueError, StopIteration):
            return warning("clock", "there is nothing here to compare this clock with", "")
        if made_s - now > WRONG_S:
            return bad(
                "clock",
                f"this clock is at least {_duration(made_s - now)} slow: the catalog is newer than now",
                "set it: `timedatectl set-ntp true`, or whatever sets clocks here",
            )
        return ok("clock", "this clock is not behind the catalog's; no origin was there to compare with")

    async def _first(self, ask: Callable[[Source, int, tuple[str, int]], Awaitable[str]]) -> Probed:
        """Ask each of the origin's addresses in turn, all within ``PROBE_S``."""
        trouble = Probed("it has no address", "no_address")
        try:
            async with asyncio.timeout(PROBE_S):
                for source in self._patient.origin:
                    try:
                        family, address = await self._locate(source)
                        return Probed("", "", await ask(source, family, address), source.address)
                    except FarcastError as error:
                        if trouble.reason != "wrong_key":
                            trouble = Probed(str(error), error.reason)
        except TimeoutError:
            if trouble.reason == "no_address":
                trouble = Probed(f"no answer within {PROBE_S:.0f} s", "timeout")
        return trouble

    async def _locate(self, source: Source) -> tuple[int, tuple[str, int]]:
        host, port = parse_address(source.address)
        found = await self._resolve(host, port)
        allowed = self._patient.settings.network.allow_private
        for family, address in found:
            if allowed or is_public(address[0]) or self._patient.role == "origin":
                return family, address
        message = f"{host} is a private address, and [network] allow_private is false"
        raise UnreachableError(message, reason="private_address")

    async def _by_quic(self, source: Source, family: int, address: tuple[str, int]) -> str:
        channel = await Channel.open(family, address, source.key)
        try:
            reply = await channel.request(
                "GET", authority(source.address), _PATH, body=b"", headers={}, limit_bytes=ANSWER_LIMIT_BYTES
            )
        finally:
            channel.close()
        return reply.headers.get("date", "")

    async def _by_tls(self, source: Source, family: int, address: tuple[str, int]) -> str:
        host = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
        return await _ask_tls(f"{host}:{address[1]}", source.key, authority(source.address))


async def check_listener(patient: Patient) -> Finding:
    """Say whether the running box answers under its own key, or a stopped one could listen."""
    name, listen = "listener", patient.settings.listen
    if not patient.running:
        try:
            for sock in bind_pair(listen.host, listen.port, "[listen] port"):
                sock.close()
        except UsageError as error:
            return bad(name, str(error), "do what it says; the box cannot start before")
        return ok(name, f"port {listen.port} is free for TCP and UDP")
    host = "127.0.0.1" if listen.host in ("", "0.0.0.0", "::") else listen.host  # noqa: S104 - compared, not bound
    where = f"[{host}]:{patient.port}" if ":" in host else f"{host}:{patient.port}"
    # a viewer's node shows the LAN a key that lives as long as its process
    key = patient.identity.key if patient.identity and patient.role != "node" else b""
    try:
        await _ask_tls(where, key, where)
    except UnreachableError as error:
        return bad(name, f"the running box does not answer on its public port: {error}", "restart it")
    except RemoteError as error:
        return bad(name, f"another box answers on this one's port: {error}", "restart it on another port")
    return ok(name, f"the box answers on port {patient.port}")


async def check_running(patient: Patient) -> Finding:
    """Say whether the box runs and answers its commands."""
    name = "box"
    run = "farcast run" if patient.role == "node" else f"farcast {patient.role} run"
    if not patient.running:
        return warning(name, f"no box runs in {patient.home}", run)
    base, _, _ = patient.url.rpartition("/")
    try:
        reply = await _get(f"{base}{_PATH}", b"", {})
        found = reply if patient.role == "origin" else await _get(f"{patient.url}/api/status", b"", {})
    except RemoteError as error:
        mend = f"end process {patient.pid} and start it again: {run}"
        return bad(name, f"process {patient.pid} runs but does not answer: {error}", mend)
    if (reply.status, found.status) != (200, 200):
        return bad(name, f"the box answers {max(reply.status, found.status)}", f"start it again: {run}")
    said = _verdict(found.body) if patient.role != "origin" else ""
    if said and not said.startswith(_WELL):
        return warning(name, f"the box runs and says: {said}", f"`{run.removesuffix('run')}status` says more")
    return ok(name, f"the box runs as process {patient.pid} and answers")


async def check_hints(patient: Patient) -> Finding:
    """Say what carries hints, and how the gossip process of a running box is."""
    name = "hints"
    if not patient.running or patient.settings.hints.by != "p2p" or patient.standalone:
        return ok(name, _HINTS[patient.settings.hints.by])
    try:
        found = msgspec.json.decode((await _get(f"{patient.url}/api/hints", b"", {})).body, type=_Hints)
    except (RemoteError, msgspec.MsgspecError):
        return warning(name, "how the gossip process is could not be asked", "look at `box` first")
    gossip = found.gossip
    if gossip is None or gossip.state in ("up", "starting"):
        return ok(name, f"hints go by HTTP and by gossip with {gossip.peers if gossip else 0} peers")
    why = f": {gossip.why}" if gossip.why else ""
    return warning(
        name,
        f"the gossip process is {gossip.state}{why}; hints go by HTTP alone",
        f'mend that and send SIGHUP to process {patient.pid}, or set [hints] by = "http"',
    )


async def _ask_tls(where: str, key: bytes, host: str) -> str:
    """Return the date in the answer of the box with ``key`` at ``where``; without a key, in plain HTTP."""
    reply = await _get(f"{'https' if key else 'http'}://{where}{_PATH}", key, {"host": host})
    return reply.headers.get("date", "")


async def _get(url: str, key: bytes, headers: dict[str, str]) -> Reply:
    """Make one GET on a connection of its own."""
    carrier = TcpCarrier(allow_private=True)
    try:
        return await carrier.request(
            "GET", url, key, body=b"", headers=headers, limit_bytes=ANSWER_LIMIT_BYTES, ask=Ask()
        )
    finally:
        await carrier.close()


def _verdict(status: bytes) -> str:
    """Return what a running box says of itself in one line, empty where that cannot be read."""
    try:
        return msgspec.json.decode(status, type=_Status).verdict
    except msgspec.MsgspecError:
        return ""


class _Status(msgspec.Struct, frozen=True):
    verdict: str


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
