"""Settings: defaults, one ``settings.toml`` per box over them, the environment over both.

Every key and its default is in ``config/defaults.toml``; its type and bounds are here. A value
that does not fit is an error that names the file or variable, the key and the reason.

Over 400 lines because the tables of the file stand here, one after another.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from ..protocol.errors import UsageError
from .home import not_a_folder
from .settingvalue import convert, expectation, shown
from .yggdrasil import is_place

FILE = "settings.toml"
Origin = Literal["default", "file", "environment"]

Port = Annotated[int, Meta(ge=0, le=65_535)]
Percent = Annotated[int, Meta(ge=0, le=95)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Millis = Annotated[int, Meta(ge=1, le=60_000)]
Hours = Annotated[int, Meta(ge=1, le=24)]
Bytes = Annotated[int, Meta(ge=10_000_000, le=2**53 - 1)]
Rate = Annotated[int, Meta(ge=0, le=10**12)]
Cents = Annotated[int, Meta(ge=0, le=10**9)]
Line = Annotated[str, Meta(max_length=255)]
Lines = Annotated[list[Line], Meta(max_length=64)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[table]`` of the file; every key is required, ``defaults.toml`` has them all."""


class Listen(Table, frozen=True):
    """``[listen]``: the public listeners."""

    host: Line
    port: Port
    workers: Annotated[int, Meta(ge=1, le=64)]


class Admin(Table, frozen=True):
    """``[admin]``: the loopback listener."""

    host: Line
    port: Port
    token: Annotated[
        str, Meta(pattern=r"^([A-Za-z0-9_-]{16,128})?$", description="16 or more of A-Z a-z 0-9 - _")
    ]


class Lan(Table, frozen=True):
    """``[lan]``: the listener for televisions of this household."""

    enabled: bool
    host: Line
    port: Port


class Store(Table, frozen=True):
    """``[store]``: blocks on disk."""

    quota_bytes: Bytes
    ram_bytes: Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Spool(Table, frozen=True):
    """``[spool]``: pulses on their way home."""

    foreign_quota_bytes: Bytes


class Contract(Table, frozen=True):
    """``[contract]``: what the operator gives (docs/cli.md, "The operator's contract")."""

    rate_up_bps: Rate
    rate_down_bps: Rate
    quiet_hours: Lines
    quiet_rate_up_bps: Rate
    quiet_rate_down_bps: Rate
    volume_bytes: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    volume_counts: Literal["both", "up", "down", "larger"]
    billing_day: Annotated[int, Meta(ge=1, le=31)]
    zone: Line
    lan_exempt: bool
    publishers: Lines
    listed: bool
    connections: Annotated[int, Meta(ge=16, le=1_000_000)]
    client_connections: Annotated[int, Meta(ge=0, le=100_000)]
    client_requests_s: Annotated[int, Meta(ge=0, le=1_000_000)]


class Network(Table, frozen=True):
    """``[network]``: who is dialled, what is announced."""

    allow_private: bool
    map_ports: bool
    announce: Lines
    interfaces: Lines
    overlay: bool
    yggdrasil: Line
    direct: bool
    plain_blocks: bool


class Metered(Table, frozen=True):
    """``[metered]``: an uplink whose every byte is paid for."""

    daily_bytes: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    dish: Line


class Reticulum(Table, frozen=True):
    """``[reticulum]``: news by radio, where a box has Reticulum beside it."""

    enabled: bool
    python: Line
    config: Line
    rate_bps: Annotated[int, Meta(ge=100, le=1_000_000_000)]
    share_percent: Annotated[int, Meta(ge=1, le=100)]


class Web(Table, frozen=True):
    """``[web]``: the player page of origin and relays, for browsers without a node."""

    enabled: bool


class Mesh(Table, frozen=True):
    """``[mesh]``: LAN neighbours."""

    enabled: bool
    networks: Lines
    group: Line
    port: Port
    zeroconf: bool
    share: bool


class Hints(Table, frozen=True):
    """``[hints]``: untrusted news between boxes, and what carries it."""

    by: Literal["none", "http", "p2p"]
    host: Line
    port: Port
    peers: Lines
    python: Line


class Satellite(Table, frozen=True):
    """``[satellite]``: receiving the carousel."""

    enabled: bool
    group: Line
    port: Port
    interface: Line
    keep_bytes: Annotated[int, Meta(ge=20_000_000, le=10**12)]


class Uplink(Table, frozen=True):
    """``[uplink]``: sending the carousel."""

    enabled: bool
    rate_bps: Annotated[int, Meta(ge=1_000, le=10**11)]
    planned_loss_percent: Percent
    generation_bytes: Annotated[int, Meta(ge=100_000, le=20_000_000)]
    head_share_percent: Percent
    ttl: Annotated[int, Meta(ge=0, le=255)]


class Heartbeat(Table, frozen=True):
    """``[heartbeat]``: whether and how often a pulse is made."""

    enabled: bool
    interval_s: Annotated[int, Meta(ge=1, le=120)]


class Batch(Table, frozen=True):
    """``[batch]``: pulses of others on the way to the origin."""

    interval_s: Seconds
    max_pulses: Annotated[int, Meta(ge=1, le=4_096)]


class Catalog(Table, frozen=True):
    """``[catalog]``: following the origin's catalog."""

    poll_s: Seconds
    idle_poll_s: Seconds


class Ladder(Table, frozen=True):
    """``[ladder]``: hedging and probing of tiers."""

    hedge_min_ms: Millis
    hedge_max_ms: Millis
    probe_s: Seconds
    waste_percent: Percent


class Fill(Table, frozen=True):
    """``[fill]``: what a relay brings in, and from whom."""

    peers: bool
    ahead: Annotated[int, Meta(ge=0, le=8)]
    push: bool


class Deny(Table, frozen=True):
    """``[deny]``: what this box does not serve, whatever the catalog lists."""

    files: Lines


class Money(Table, frozen=True):
    """``[money]``: the rules of settlement."""

    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="three capital letters")]
    reserve_basis_points: Annotated[int, Meta(ge=0, le=10_000)]
    reserve_base: Literal["revenue", "net"]
    relay_cents_per_gb: Cents
    mode: Literal["pooled", "per_payer"]
    session_cap_h: Hours
    day_cap_h: Hours
    gap_s: Seconds
    median_factor: Annotated[int, Meta(ge=1, le=1_000)]
    median_accounts: Annotated[int, Meta(ge=1, le=1_000_000)]
    near_cap_min: Annotated[int, Meta(ge=0, le=1_439)]
    near_cap_days: Annotated[int, Meta(ge=1, le=31)]
    payer_factor: Annotated[int, Meta(ge=1, le=1_000)]
    relay_max_bps: Annotated[int, Meta(ge=8_000, le=10**13)]
    appeal_days: Annotated[int, Meta(ge=1, le=365)]
    auto_settle: bool
    ledger: Annotated[
        str,
        Meta(
            pattern=r"^(postgres(ql)?://\S{1,1000})?$",
            description="empty, or postgresql://USER@HOST/DATABASE",
        ),
    ]
    patron_fee_basis_points: Annotated[int, Meta(ge=0, le=10_000)]
    payout_min_cents: Annotated[int, Meta(ge=1, le=10**9)]
    payout_day: Annotated[int, Meta(ge=1, le=28)]
    withholding: Annotated[
        dict[
            Annotated[str, Meta(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?|\*)$")],
            Annotated[int, Meta(ge=0, le=9_999)],
        ],
        Meta(max_length=500, description="regions with basis points from 0 to 9999, such as DE = 1500"),
    ]


class Payout(Table, frozen=True):
    """``[payout]``: the account that pays, and the provider that is asked to (docs/cli.md, "Payouts")."""

    name: Line
    iban: Line
    bic: Line
    url: Line
    key: Line


class Intake(Table, frozen=True):
    """``[intake]``: how the origin takes pulses."""

    verify: Literal["eager", "chained"]
    open_pulses: Annotated[int, Meta(ge=1_000, le=10_000_000)]


class Trust(Table, frozen=True):
    """``[trust]``: looking for newer keys."""

    refresh_s: Seconds


class Access(Table, frozen=True):
    """``[access]``: titles that need a ticket."""

    recheck_s: Seconds


class Ipfs(Table, frozen=True):
    """``[ipfs]``: gateways from which a relay's operator pins by CID."""

    pin_from: Lines


class Kubo(Table, frozen=True):
    """``[kubo]``: an IPFS node that keeps what the origin publishes too."""

    rpc: Line


class Cdn(Table, frozen=True):
    """``[cdn]``: how the origin's pull zones purge and what lets boxes in (docs/cli.md, "Pull zones")."""

    zones: Lines


class Log(Table, frozen=True):
    """``[log]``: how much is written."""

    level: Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective settings of a box; ``origins`` says where each ``table.key`` came from."""

    listen: Listen
    admin: Admin
    lan: Lan
    store: Store
    contract: Contract
    spool: Spool
    network: Network
    metered: Metered
    reticulum: Reticulum
    web: Web
    mesh: Mesh
    hints: Hints
    satellite: Satellite
    uplink: Uplink
    heartbeat: Heartbeat
    batch: Batch
    intake: Intake
    catalog: Catalog
    ladder: Ladder
    fill: Fill
    deny: Deny
    money: Money
    payout: Payout
    trust: Trust
    access: Access
    ipfs: Ipfs
    kubo: Kubo
    cdn: Cdn
    log: Log
    origins: Mapping[str, Origin]

    @classmethod
    def load(cls, home: Path | None, environ: Mapping[str, str]) -> Settings:
        """Read the settings of the box in ``home``; defaults alone where there is no home or no file.

        Raises:
            UsageError: naming the file or variable, the key and the reason.

        """
        path = Path(FILE) if home is None else home / FILE
        entries = [*_defaults()]
        if home is not None:
            entries += _from_file(path)
        entries += _from_environ(environ)
        values: dict[str, dict[str, object]] = {table: {} for table in TABLES}
        newest: dict[str, _Entry] = {}
        for entry in entries:
            values[entry.table][entry.key] = entry.read()
            newest[f"{entry.table}.{entry.key}"] = entry
        tables: dict[str, Any] = {table: kind(**values[table]) for table, kind in TABLES.items()}
        settings = cls(**tables, origins={name: entry.origin for name, entry in newest.items()})
        settings._check(newest)
        return settings

    def origin_of(self, key: str) -> Origin:
        """Say where ``table.key`` came from; raises ``UsageError`` where there is no such key."""
        if key not in self.origins:
            raise UsageError(f"{key}: no such setting{_nearest(key, self.origins)}", reason="settings")
        return self.origins[key]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return every key with its value as text and where it came from; secrets are not shown."""
        rows: list[tuple[str, str, str]] = []
        for name, origin in self.origins.items():
            table, _, key = name.partition(".")
            value = getattr(getattr(self, table), key)
            if key in _SECRETS:
                text = "(set)" if value else ""
            elif isinstance(value, list):
                text = ", ".join(cast("list[str]", value))
            elif isinstance(value, dict):
                text = ", ".join(f"{key} = {part}" for key, part in cast("dict[str, int]", value).items())
            else:
                text = str(value).lower() if isinstance(value, bool) else str(value)
            rows.append((name, text, origin))
        return rows

    def _check(self, newest: Mapping[str, _Entry]) -> None:
        """Refuse values that fit alone but not in the world, or not together."""
        if not _is_loopback(self.admin.host):
            raise newest["admin.host"].refused("an address of this machine's loopback, such as '127.0.0.1'")
        self._check_networks(newest)
        if not all(_PLACE.fullmatch(text) for text in self.network.announce):
            raise newest["network.announce"].refused("'HOST:PORT' or 'https://HOST' entries")
        self._check_contract(newest)
        self._check_money(newest)
        for name, group in (("mesh.group", self.mesh.group), ("satellite.group", self.satellite.group)):
            if not _is_multicast(group):
                raise newest[name].refused("an IPv4 multicast address such as '239.255.74.34'")
        if not all(_GATEWAY.fullmatch(text) for text in self.ipfs.pin_from):
            raise newest["ipfs.pin_from"].refused(
                "base URLs of IPFS gateways such as 'http://127.0.0.1:8080'"
            )
        if not all(_ZONE.fullmatch(text) for text in self.cdn.zones):
            expected = "lines such as 'https://films.b-cdn.net kind=bunny key=/etc/farcast/bunny.key'"
            raise newest["cdn.zones"].refused(expected)
        if self.kubo.rpc and not _is_rpc(self.kubo.rpc):
            raise newest["kubo.rpc"].refused("an https or a loopback URL such as 'http://127.0.0.1:5001'")
        if self.ladder.hedge_max_ms < self.ladder.hedge_min_ms:
            raise newest["ladder.hedge_max_ms"].refused(f"at least hedge_min_ms ({self.ladder.hedge_min_ms})")

    def _check_money(self, newest: Mapping[str, _Entry]) -> None:
        money = self.money
        if money.near_cap_min >= money.day_cap_h * 60:  # every day with a second in it would be near
            raise newest["money.near_cap_min"].refused(
                f"fewer minutes than day_cap_h has ({money.day_cap_h * 60})"
            )

    def _check_networks(self, newest: Mapping[str, _Entry]) -> None:
        if not all(_is_address(text) for text in self.network.interfaces):
            expected = "addresses of this machine's interfaces, such as '192.168.1.20'"
            raise newest["network.interfaces"].refused(expected)
        if not all(_is_network(text) for text in self.mesh.networks):
            raise newest["mesh.networks"].refused("networks, such as '192.168.1.0/24'")
        if self.hints.host and not _is_address(self.hints.host):
            raise newest["hints.host"].refused("an address such as '0.0.0.0', or nothing")
        if not all(_GOSSIP_PEER.fullmatch(text) for text in self.hints.peers):
            expected = "multiaddrs such as '/ip4/192.0.2.7/tcp/7436/p2p/12D3KooW...'"
            raise newest["hints.peers"].refused(expected)
        if self.network.yggdrasil and not is_place(self.network.yggdrasil):
            raise newest["network.yggdrasil"].refused("'unix:///PATH' or 'tcp://localhost:9001'")
        dish = self.metered.dish
        if dish and (not _PLACE.fullmatch(dish) or dish.startswith("https:")):
            raise newest["metered.dish"].refused("HOST:PORT, of a Starlink dish '192.168.100.1:9200'")

    def _check_contract(self, newest: Mapping[str, _Entry]) -> None:
        contract = self.contract
        for name in ("rate_up_bps", "rate_down_bps", "quiet_rate_up_bps", "quiet_rate_down_bps"):
            if 0 < getattr(contract, name) < SLOWEST_RATE_BPS:
                raise newest[f"contract.{name}"].refused('0 for no limit, or at least "64 kbit/s"')
        if 0 < contract.volume_bytes < SMALLEST_VOLUME_BYTES:
            raise newest["contract.volume_bytes"].refused('0 for no limit, or at least "10 MB"')
        if not all(_HOURS.fullmatch(text) for text in contract.quiet_hours):
            raise newest["contract.quiet_hours"].refused("times of day such as '23:00-07:00'")
        if not all(_CARRIED.fullmatch(text) for text in contract.publishers):
            expected = "publishers' ids or '*' for all others, with a budget or none: '12D3KooW... = 50 GB'"
            raise newest["contract.publishers"].refused(expected)
        if not _is_zone(contract.zone):
            raise newest["contract.zone"].refused("a time zone such as 'UTC' or 'Europe/Berlin'")


TABLES: Mapping[str, type[Table]] = {
    "listen": Listen,
    "admin": Admin,
    "lan": Lan,
    "store": Store,
    "contract": Contract,
    "spool": Spool,
    "network": Network,
    "metered": Metered,
    "reticulum": Reticulum,
    "web": Web,
    "mesh": Mesh,
    "hints": Hints,
    "satellite": Satellite,
    "uplink": Uplink,
    "heartbeat": Heartbeat,
    "batch": Batch,
    "intake": Intake,
    "catalog": Catalog,
    "ladder": Ladder,
    "fill": Fill,
    "deny": Deny,
    "money": Money,
    "payout": Payout,
    "trust": Trust,
    "access": Access,
    "ipfs": Ipfs,
    "kubo": Kubo,
    "cdn": Cdn,
    "log": Log,
}
_KINDS: Mapping[str, Mapping[str, Any]] = {
    table: {field.name: field.type for field in msgspec.structs.fields(kind)}
    for table, kind in TABLES.items()
}
_SECRETS = frozenset({"token", "ledger"})
_PREFIX = "FARCAST_"
SLOWEST_RATE_BPS, SMALLEST_VOLUME_BYTES = 64_000, 10_000_000
_GOSSIP_PEER = re.compile(
    r"/(ip4/[0-9.]{7,15}|ip6/[0-9A-Fa-f:.]{2,45}|dns[46]?/[\w.-]{1,120})/tcp/[0-9]{1,5}/p2p/12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"
)
_HOURS = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]\s*-\s*(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)")
_CARRIED = re.compile(r"(\*|12D3KooW[1-9A-HJ-NP-Za-km-z]{44})(\s*=\s*[0-9.]+\s*([kKmMgGtT]?[iI]?[bB])?)?")
_PLACE = re.compile(r"https://[^/:\s]+(:[0-9]{1,5})?|([^/:\s]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}")
_ZONE = re.compile(r"https?://[^\s?#]+( +[a-z_]+=\S+)*")
_GATEWAY = re.compile(r"https?://([^/:\s\[\]@?#]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?/?")


@dataclass(frozen=True)
class _Entry:
    """A value somebody gave for a key, and where it stands."""

    table: str
    key: str
    value: object
    origin: Origin
    where: str

    def read(self) -> object:
        try:
            return convert(
                self.key, _KINDS[self.table][self.key], self.value, text=self.origin == "environment"
            )
        except (ValueError, msgspec.ValidationError):
            raise self.refused(expectation(self.key, _KINDS[self.table][self.key])) from None

    def refused(self, expected: str) -> UsageError:
        got = "" if self.key in _SECRETS else f", got {shown(self.value)}"
        return UsageError(f"{self.where}: expected {expected}{got}", reason="settings")


def _defaults() -> Iterator[_Entry]:
    text = files("farcast.config").joinpath("defaults.toml").read_text("utf-8")
    for table, keys in tomllib.loads(text).items():
        for key, value in keys.items():
            yield _Entry(table, key, value, "default", f"defaults.toml: [{table}] {key}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise not_a_folder(path.parent) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", reason="settings") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not TOML: it is not UTF-8 text", reason="settings") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", reason="settings") from error


def _from_file(path: Path) -> Iterator[_Entry]:
    for table, keys in _read_file(path).items():
        if table not in TABLES:
            raise UsageError(f"{path}: [{table}]: no such table{_nearest(table, TABLES)}", reason="settings")
        if not isinstance(keys, dict):
            raise UsageError(f"{path}: {table}: expected a table, write [{table}]", reason="settings")
        for key, value in cast("dict[str, object]", keys).items():
            if key not in _KINDS[table]:
                message = f"{path}: [{table}] {key}: no such key{_nearest(key, _KINDS[table])}"
                raise UsageError(message, reason="settings")
            yield _Entry(table, key, value, "file", f"{path}: [{table}] {key}")


def _from_environ(environ: Mapping[str, str]) -> Iterator[_Entry]:
    """Read the variables that name a table; others, such as FARCAST_HOME, are not settings."""
    for name, value in sorted(environ.items()):
        table, _, key = name.removeprefix(_PREFIX).lower().partition("_")
        if not name.startswith(_PREFIX) or table not in TABLES:
            continue
        if key not in _KINDS[table]:
            known = [f"{_PREFIX}{table}_{known}".upper() for known in _KINDS[table]]
            raise UsageError(f"{name}: no such setting{_nearest(name, known)}", reason="settings")
        yield _Entry(table, key, value, "environment", name)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_zone(name: str) -> bool:
    try:
        return not name or bool(zoneinfo.ZoneInfo(name))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False


def _is_loopback(text: str) -> bool:
    return text == "localhost" or (_is_address(text) and ipaddress.ip_address(text).is_loopback)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_rpc(text: str) -> bool:
    match = _GATEWAY.fullmatch(text)
    return match is not None and (text.startswith("https://") or _is_loopback(match[1].strip("[]")))


def _is_multicast(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_multicast
    except ValueError:
        return False
