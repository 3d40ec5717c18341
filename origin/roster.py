"""The roster: relays that enrolled, how each stands, and the signed directory of the approved."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Literal, NamedTuple, cast

from ..node.ladder.tiers import address
from ..protocol.codec import decode, encode
from ..protocol.directory import Directory, RelayRecord, open_record, seal_directory
from ..protocol.enrol import Fault, Wish
from ..protocol.errors import RefusedError, UsageError
from ..protocol.identity import Identity, peer_id
from ..protocol.rotation import open_rotation
from .accounts import Accounts, spend

DIRECTORY_TTL_MS = 24 * 3_600_000
RESIGN_MS = 3_600_000
"""An unchanged directory is signed again after this long, far ahead of its expiry."""
MAX_RECORD_TTL_MS = 31 * 24 * 3_600_000
CLOCK_SLACK_MS = 300_000
MAX_PENDING = 1_000
MAX_RELAYS = 10_000

Standing = Literal["pending", "approved", "refused"]


class Relay(NamedTuple):
    """One relay on the roster; ``data`` is its signed record, ``faults`` what dialling it back found.

    ``key`` is its first key, which names it, ``used`` the one it has now.
    """

    key: bytes
    used: bytes
    data: bytes
    record: RelayRecord
    standing: Standing
    wish: Wish
    reason: str
    faults: list[Fault]

    @property
    def peer_id(self) -> str:
        """The relay's id."""
        return peer_id(self.key)

    def listed(self, now_ms: int) -> bool:
        """Say whether the directory has it: approved, fresh, wishing so, and to be reached somewhere."""
        return (
            self.standing == "approved"
            and self.wish == "listed"
            and self.record.relay == self.used
            and self.record.expires_ms > now_ms
            and not unreachable(self.record, self.faults)
        )


class Roster:
    """Keeps relays' standing in ``accounts.db`` and the approved ones' keys at hand."""

    def __init__(self, accounts: Accounts, catalog: Identity, *, allow_private: bool = False) -> None:
        self._accounts = accounts
        self._catalog = catalog
        self._allow_private = allow_private
        self._approved: frozenset[bytes] = frozenset()
        self._paid: dict[bytes, bytes] = {}
        self._directory: bytes | None = None
        self._issued_ms = 0
        self._changed = True
        self._signing = threading.Lock()
        self._reload()

    def is_relay(self, key: bytes) -> bool:
        """Say whether ``key`` is an approved relay's; its stamps count, and its bytes are paid."""
        return key in self._approved

    def paid(self) -> dict[bytes, bytes]:
        """Return every key that an approved relay has or had, with the relay's first key, its id."""
        return self._paid

    def relays(self) -> list[Relay]:
        """Return every relay, the waiting ones first."""
        return self._relays("ORDER BY standing = 'pending' DESC, enrolled_ms", ())

    def relay(self, key: bytes) -> Relay | None:
        """Return the relay whose key this is now."""
        return next(iter(self._relays("WHERE used = ?", (key,))), None)

    def _relays(self, clause: str, values: tuple[object, ...]) -> list[Relay]:
        query = f"SELECT key, used, record, standing, wish, reason, faults FROM relay {clause}"  # noqa: S608 - ours
        with self._accounts.reading() as conn:
            rows = conn.execute(query, values).fetchall()
        return [
            Relay(
                bytes(key), bytes(used), bytes(data), open_record(data),
                cast("Standing", standing), cast("Wish", wish), reason,
                decode(list[Fault], faults) if faults else [],
            )
            for key, used, data, standing, wish, reason, faults in rows
        ]  # fmt: skip

    def payee_of(self, key: bytes) -> str:
        """Return the payee a relay names for its pay, empty where it names none."""
        with self._accounts.reading() as conn:
            row = conn.execute(
                "SELECT payee FROM relay "
                "WHERE ?1 IN (key, used) OR key = (SELECT relay FROM relay_key WHERE key = ?1)",
                (key,),
            ).fetchone()
        return str(row[0]) if row else ""

    def payees(self) -> dict[bytes, str]:
        """Return the payee of every key that an approved relay has or had, where it names one."""
        with self._accounts.reading() as conn:
            rows = conn.execute("SELECT key, payee FROM relay WHERE standing = 'approved' AND payee <> ''")
            named = {bytes(key): str(payee) for key, payee in rows}
        return {key: named[relay] for key, relay in self._paid.items() if relay in named}

    def enrol(self, token: str, data: bytes, signer: bytes, now_ms: int, wish: Wish = "listed") -> Standing:
        """Take a relay's signed record: with an invite's token it is approved at once.

        A known relay renews without a token and keeps its standing; an unknown one waits.

        Raises:
            RefusedError: 403 for a record that is not the signer's or a bad token, 400 for times or
                endpoints that cannot be used, 429 while too many wait.
            RemoteError: where the record does not verify.

        """
        record = open_record(data)
        if record.relay != signer:
            raise RefusedError("the record is another relay's", status=403, reason="wrong_key")
        self._check(record, now_ms)
        with self._accounts.writing() as conn:
            self._refuse_former(conn, signer)
            row = conn.execute("SELECT standing, created_ms FROM relay WHERE used = ?", (signer,)).fetchone()
            if row is not None and record.created_ms < row[1]:
                raise RefusedError("a newer record of this relay is here already", status=409, reason="stale")
            standing = cast("Standing", row[0]) if row else "pending"
            if token and standing != "refused":
                spend(conn, token, "relay", signer, now_ms)
                standing = "approved"
            if row is None:
                waiting, known = conn.execute(
                    "SELECT coalesce(sum(standing = 'pending'), 0), count(*) FROM relay"
                ).fetchone()
                if (standing == "pending" and waiting >= MAX_PENDING) or known >= MAX_RELAYS:
                    message = "too many relays wait for approval; try again tomorrow"
                    raise RefusedError(message, status=429, retry_after_s=86_400, reason="too_many_relays")
            conn.execute(
                """INSERT INTO relay (key, used, record, standing, payee, enrolled_ms, created_ms, wish)
                   VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (used) DO UPDATE SET record = excluded.record, standing = excluded.standing,
                   payee = excluded.payee, created_ms = excluded.created_ms, wish = excluded.wish""",
                (signer, data, standing, record.payee, now_ms, record.created_ms, wish),
            )
        self._reload()
        return standing

    def rotate(self, data: bytes, signer: bytes, now_ms: int) -> bytes:
        """Give a relay its new key; standing, payee and pay stay. Returns the relay's first key.

        Told twice it is no news, so that a relay which missed the answer may ask again.

        Raises:
            RefusedError: 403 where the signer is not the new key or the old one is no relay's here, 409
                where the new key is known already.
            RemoteError: where the rotation does not verify.

        """
        rotation = open_rotation(data)
        if rotation.new != signer:
            raise RefusedError("the rotation is to another key", status=403, reason="wrong_key")
        if rotation.at_ms > now_ms + CLOCK_SLACK_MS:
            message = "the rotation's time is not now; set the relay's clock right"
            raise RefusedError(message, status=400, reason="bad_times")
        with self._accounts.writing() as conn:
            row = conn.execute("SELECT key, used FROM relay WHERE key = ?", (rotation.relay,)).fetchone()
            done = conn.execute("SELECT relay FROM relay_key WHERE key = ?", (rotation.old,)).fetchone()
            if row is not None and row[1] == rotation.new and done is not None and done[0] == rotation.relay:
                return rotation.relay
            if row is None or row[1] != rotation.old:
                message = f"{peer_id(rotation.old)} is not the key of a relay here"
                raise RefusedError(message, status=403, reason="unknown_relay")
            taken = "SELECT 1 FROM relay WHERE ?1 IN (key, used) UNION SELECT 1 FROM relay_key WHERE key = ?1"
            if conn.execute(taken, (rotation.new,)).fetchone() is not None:
                raise RefusedError("the new key is known here already", status=409, reason="known_key")
            conn.execute("UPDATE relay SET used = ? WHERE key = ?", (rotation.new, rotation.relay))
            former = (rotation.old, rotation.relay, rotation.at_ms)
            conn.execute("INSERT INTO relay_key VALUES (?, ?, ?)", former)
        self._reload()
        return rotation.relay

    def mark(self, key: bytes, faults: list[Fault], now_ms: int) -> None:
        """Keep what dialling a relay back has found."""
        data = encode(faults) if faults else b""
        with self._accounts.writing() as conn:
            conn.execute("UPDATE relay SET faults = ?, dialled_ms = ? WHERE used = ?", (data, now_ms, key))
        self._changed = True

    def judge(self, relay_id: str, standing: Standing, reason: str = "") -> bytes:
        """Approve or refuse the relay with this id, or its unique beginning or end; returns its key.

        ``reason`` is what the relay's operator is told.

        Raises:
            UsageError: where no relay, or more than one, is meant.

        """
        found = [
            relay
            for relay in self.relays()
            if relay.peer_id.startswith(relay_id) or relay.peer_id.endswith(relay_id)
        ]
        if len(found) != 1 or not relay_id:
            what = f"{len(found)} relays of this origin fit" if found else "no relay of this origin fits"
            raise UsageError(f"{what} {relay_id!r}; `farcast origin relays` lists them")
        with self._accounts.writing() as conn:
            conn.execute(
                "UPDATE relay SET standing = ?, reason = ? WHERE key = ?", (standing, reason, found[0].key)
            )
        self._reload()
        return found[0].key

    def directory(self) -> bytes | None:
        """Return the signed directory as of the last ``sign``."""
        return self._directory

    def sign(self, now_ms: int) -> bytes:
        """Sign the directory if it changed or grows old, and return it."""
        with self._signing:
            if self._directory is None or self._changed or now_ms - self._issued_ms >= RESIGN_MS:
                self._changed = False
                live = [relay.data for relay in self.relays() if relay.listed(now_ms)]
                issued_ms = max(now_ms, self._issued_ms + 1)  # a follower takes only a later one
                directory = Directory(1, issued_ms, issued_ms + DIRECTORY_TTL_MS, live)
                self._directory, self._issued_ms = seal_directory(directory, self._catalog), issued_ms
            return self._directory

    def _check(self, record: RelayRecord, now_ms: int) -> None:
        if record.expires_ms <= now_ms or record.created_ms > now_ms + CLOCK_SLACK_MS:
            message = "the record's times are not now; set the relay's clock right"
            raise RefusedError(message, status=400, reason="bad_times")
        if record.expires_ms - record.created_ms > MAX_RECORD_TTL_MS:
            raise RefusedError("the record holds for more than 31 days", status=400, reason="bad_times")
        for endpoint in record.endpoints:
            if not self._allow_private and not _public(endpoint.host):
                message = f"{endpoint.host} is no public address; announce one that viewers can reach"
                raise RefusedError(message, status=400, reason="private_endpoint")

    @staticmethod
    def _refuse_former(conn: Connection, signer: bytes) -> None:
        if conn.execute("SELECT 1 FROM relay_key WHERE key = ?", (signer,)).fetchone() is not None:
            message = f"{peer_id(signer)} was given up for another key"
            raise RefusedError(message, status=403, reason="former_key")

    def _reload(self) -> None:
        with self._accounts.reading() as conn:
            now = conn.execute("SELECT used, key FROM relay WHERE standing = 'approved'").fetchall()
            former = conn.execute(
                "SELECT relay_key.key, relay FROM relay_key JOIN relay ON relay.key = relay "
                "WHERE standing = 'approved'"
            ).fetchall()
        self._approved = frozenset(bytes(used) for used, _ in now)
        self._paid = {bytes(key): bytes(relay) for key, relay in [*now, *former]}
        self._changed = True


def _public(host: str) -> bool:
    """Say whether a host is a public unicast address or at least a name with a dot in it."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return "." in name and not name.endswith((".local", ".localhost", ".internal", ".home.arpa"))
    return found.is_global and not found.is_multicast


def unreachable(record: RelayRecord, faults: Sequence[Fault]) -> bool:
    """Say whether no endpoint of ``record`` can be used, so that a directory had better leave it out."""
    lost = {fault.endpoint for fault in faults if fault.lost == "both"}
    return all(address(endpoint) in lost for endpoint in record.endpoints)
