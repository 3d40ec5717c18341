"""Unlocking: protected titles in the clear for the players of this box, as long as it holds a ticket.

The store has ciphertext only; what is decrypted here goes to a player and into a small memory for
its next range, never to the disk. Playlists lose their keys on the way out, so every player of HLS
or DASH plays a protected title like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.codec import encode
from ...protocol.contentkey import LEASE_MS, KeyRequest, Lease, open_key_answer
from ...protocol.errors import FarcastError, LocalError, RefusedError, RemoteError
from ...protocol.identity import Identity
from ...protocol.manifest import Manifest
from ...protocol.protection import is_playlist, is_sealed, open_file, posters, unlock_playlist
from ..pulses.wallet import Credential, Wallet
from .lease import Leases, Refusal

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE_LIMIT_BYTES = 64 << 20
MEMORY_BYTES = 32 << 20
"""Clear files kept for a player that fetches one in ranges."""
AT_ONCE = 16
RENEW_MS = 6 * 3_600_000
"""How old the grant of a kept title's key gets while the origin can be reached."""
FINAL = frozenset({"revoked", "taken_down", "window_over", "not_yet", "unknown_key"})
"""Answers after which a key held so far is used no more."""
REASONS = (*sorted(FINAL), "pulses_off", "no_account", "no_ticket", "lapsed", "no_key", "bad_ciphertext")

Ask = Callable[[bytes, Identity], Awaitable[bytes]]
"""Sends the body of ``POST /v1/keys`` to the origin, signed by a session key; returns its answer."""
ReadSealed = Callable[[], Awaitable[bytes]]


class Titles(Protocol):
    """What unlocking needs of the library."""

    def manifest(self, title: str) -> Manifest:
        """Return a title's manifest; raises ``RefusedError`` where it is not here."""
        ...


class Standing(NamedTuple):
    """What this box has to show, as far as it matters for tickets."""

    enrolled: bool
    pulses: bool
    origin: str
    no_ticket: str
    revoked: bool = False


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.asked = Counter(
            "farcast_node_content_keys", "Content keys asked for, by answer.", ["result"], registry=registry
        )
        self.held = Gauge("farcast_node_content_keys_held", "Content keys held.", registry=registry)
        self.locked = Counter(
            "farcast_node_locked", "Files refused to players, by reason.", ["reason"], registry=registry
        )
        self.opened = Counter(
            "farcast_node_unlocked_bytes", "Bytes decrypted for players.", registry=registry
        )
        for result in ("granted", "refused", "unanswered"):
            self.asked.labels(result)
        for reason in REASONS:
            self.locked.labels(reason)


class Unlocker:
    """Opens files of protected titles; asks for keys when the leases say so."""

    def __init__(
        self,
        titles: Titles,
        wallet: Wallet,
        ask: Ask,
        standing: Callable[[], Standing],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        recheck_s: int,
    ) -> None:
        """Ask again for a key in use every ``recheck_s``; ``clock_ms`` is the wall clock."""
        self._titles = titles
        self._wallet = wallet
        self._ask = ask
        self._standing = standing
        self._clock_ms = clock_ms
        self._leases = Leases(recheck_s * 1_000)
        self._asking: dict[bytes, asyncio.Task[None]] = {}
        self._memory: OrderedDict[tuple[bytes, str], bytes] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._metrics = _Metrics(registry)

    async def load(self) -> None:
        """Read the keys kept on the disk."""
        for lease in await asyncio.to_thread(self._wallet.content_keys, self._clock_ms()):
            self._leases.restore(lease)
        self._metrics.held.set(len(self._leases))

    async def close(self) -> None:
        """Stop asking."""
        tasks = [*self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._memory.clear()

    async def clear(self, manifest: Manifest, path: str, size_bytes: int, read: ReadSealed) -> bytes | None:
        """Return a file of a protected title as players are to have it; None where it is so already.

        ``read`` brings its ``size_bytes`` as they are in the store.

        Raises:
            RefusedError: 403 without a valid ticket or key, with what to do about it; 503 where the
                key was never here and the origin cannot be asked; 502 for a file its key does not open.
            RemoteError: what ``read`` raises.

        """
        if manifest.protection is None or path in posters(manifest):
            return None
        key_id, key = await self.admit(manifest)
        if not is_playlist(path) and not is_sealed(path, posters(manifest)):
            return None
        place = (key_id, path)
        clear = self._memory.get(place)
        if clear is None:
            clear = await self._opened(key, key_id, path, size_bytes, read)
            self._remember(place, clear)
        self._memory.move_to_end(place)
        return clear

    async def admit(self, manifest: Manifest) -> tuple[bytes, bytes]:
        """Return id and bytes of a protected title's key; raises ``RefusedError`` as ``clear`` does."""
        try:
            return await self._key(manifest)
        except RefusedError as error:
            self._metrics.locked.labels(error.reason).inc()
            raise

    async def locked(self, title: str) -> str:
        """Return why a title does not play now, in one sentence; empty where it does. Asks if need be."""
        try:
            manifest = self._titles.manifest(title)
            if manifest.protection is not None:
                await self._key(manifest)
        except RefusedError as error:
            return str(error)
        return ""

    def locks(self) -> Callable[[Manifest], str]:
        """Return what says the same of many titles, as far as it is known without asking. Blocking."""
        now_ms = self._clock_ms()
        credential = self._wallet.credential(now_ms)

        def lock(manifest: Manifest) -> str:
            if manifest.protection is None:
                return ""
            key_id = manifest.protection.key_ids[0]
            barred = self._barred(manifest, credential)
            if barred is None and self._leases.usable(key_id, now_ms) is None:
                barred = self._missing(manifest, key_id, now_ms) if self._leases.refusal(key_id) else None
            return "" if barred is None else str(barred)

        return lock

    async def renew(self, titles: Sequence[str]) -> None:
        """Have fresh keys of the ``titles`` that are kept here, so that they play offline."""
        for title in titles:
            try:
                manifest = self._titles.manifest(title)
            except RefusedError:
                continue  # not listed any more, or its manifest is still on its way
            if manifest.protection is None:
                continue
            key_id, now_ms = manifest.protection.key_ids[0], self._clock_ms()
            if self._leases.older(key_id, now_ms, RENEW_MS) and self._leases.due(key_id, now_ms):
                credential = await asyncio.to_thread(self._wallet.credential, now_ms)
                if self._barred(manifest, credential) is None and credential is not None:
                    await self._asked(key_id, credential)

    # -- keys

    async def _key(self, manifest: Manifest) -> tuple[bytes, bytes]:
        """Return id and bytes of the key; where it is due the origin is asked, beside a key that holds."""
        assert manifest.protection is not None, "only protected titles have keys"
        key_id, now_ms = manifest.protection.key_ids[0], self._clock_ms()
        credential = await asyncio.to_thread(self._wallet.credential, now_ms)
        barred = self._barred(manifest, credential)
        if barred is not None:
            raise barred
        assert credential is not None, "without a ticket it is barred"
        if self._leases.due(key_id, now_ms) or key_id in self._asking:
            task = self._asked(key_id, credential)
            if self._leases.usable(key_id, now_ms) is None:
                await asyncio.shield(task)
        key = self._leases.usable(key_id, self._clock_ms())
        if key is None:
            raise self._missing(manifest, key_id, self._clock_ms())
        return key_id, key

    def _asked(self, key_id: bytes, credential: Credential) -> asyncio.Task[None]:
        """Return the one request for a key that is on its way, begun now if there is none."""
        task = self._asking.get(key_id)
        if task is None:
            self._leases.asked(key_id, self._clock_ms())
            task = asyncio.get_running_loop().create_task(self._request(key_id, credential))
            self._asking[key_id] = task
            task.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return task

    async def _request(self, key_id: bytes, credential: Credential) -> None:
        body = encode(KeyRequest(1, credential.ticket, [key_id]))
        try:
            grants = open_key_answer(await self._ask(body, credential.session)).grants
            if [grant.key_id for grant in grants] != [key_id]:
                raise RemoteError("the origin answered with another key", reason="malformed")
        except FarcastError as error:
            refusal = Refusal(error.reason, str(error), error.reason in FINAL)
            refused = isinstance(error, RefusedError)
            self._metrics.asked.labels("refused" if refused else "unanswered").inc()
            self._leases.refused(key_id, refusal, self._clock_ms())
            if refusal.final:
                self._forget(key_id)
                await self._keep(self._wallet.drop_key, key_id)
        else:
            self._metrics.asked.labels("granted").inc()
            now_ms = self._clock_ms()
            lease = Lease(key_id, grants[0].key, now_ms, min(grants[0].until_ms, now_ms + LEASE_MS))
            self._leases.granted(lease)
            await self._keep(self._wallet.keep_key, lease)
        self._metrics.held.set(len(self._leases))

    async def _keep(self, change: Callable[[T], None], what: T) -> None:
        """Write to the wallet; a full disk costs the key at the next start, never playback."""
        try:
            await asyncio.to_thread(change, what)
        except LocalError as error:
            log.warning("the wallet is behind on content keys: %s", error)

    def _barred(self, manifest: Manifest, credential: Credential | None) -> RefusedError | None:
        """Return what keeps this box from any key at all."""
        standing = self._standing()
        if not standing.pulses:
            message = f"{manifest.name} plays only while pulses are on: run `farcast pulses on`"
            return _no(message, "pulses_off")
        if credential is not None:
            return None
        if standing.revoked:
            message = f"{manifest.name} does not play: this account has been revoked; ask the origin why"
            return _no(message, "revoked")
        if not standing.enrolled:
            message = f"{manifest.name} needs an account of {standing.origin}: ask there for an account "
            message += "invite, stop this node, run `farcast join LINK` and start it again"
            return _no(message, "no_account")
        why = standing.no_ticket or f"{standing.origin} has not been reached since the last ran out"
        return _no(f"{manifest.name} needs a ticket, and this box has none for today: {why}", "no_ticket")

    def _missing(self, manifest: Manifest, key_id: bytes, now_ms: int) -> RefusedError:
        """Say why there is no key."""
        refusal = self._leases.refusal(key_id)
        if refusal is not None and refusal.final:
            return _no(f"{manifest.name} does not play: {refusal.sentence}", refusal.reason)
        if self._leases.lapsed(key_id, now_ms):
            message = f"the key of {manifest.name} may be used no longer without asking: connect this box to "
            return _no(message + f"{self._standing().origin} once, and see that its clock is right", "lapsed")
        why = refusal.sentence if refusal is not None else "it was not asked yet"
        origin = self._standing().origin
        message = f"{manifest.name} needs a key from {origin}, which cannot be asked now: {why}"
        return RefusedError(message, status=503, retry_after_s=5.0, reason="no_key")

    # -- files

    async def _opened(self, key: bytes, key_id: bytes, path: str, size_bytes: int, read: ReadSealed) -> bytes:
        if size_bytes > FILE_LIMIT_BYTES:
            message = f"{path} of {size_bytes} bytes is too large for a file of a protected title"
            raise RefusedError(message, status=502, reason="bad_ciphertext")
        async with self._room:
            data = await read()
            try:
                if is_playlist(path):
                    return unlock_playlist(data.decode()).encode()
                clear = await asyncio.to_thread(open_file, key, key_id, path, data)
            except (RemoteError, UnicodeDecodeError) as error:
                self._metrics.locked.labels("bad_ciphertext").inc()
                raise RefusedError(f"{path}: {error}", status=502, reason="bad_ciphertext") from error
        self._metrics.opened.inc(len(clear))
        return clear

    def _remember(self, place: tuple[bytes, str], clear: bytes) -> None:
        self._memory[place] = clear
        held = sum(map(len, self._memory.values()))
        while held > MEMORY_BYTES and len(self._memory) > 1:
            held -= len(self._memory.popitem(last=False)[1])

    def _forget(self, key_id: bytes) -> None:
        for place in [place for place in self._memory if place[0] == key_id]:
            del self._memory[place]


def _no(message: str, reason: str) -> RefusedError:
    return RefusedError(message, status=403, reason=reason)
