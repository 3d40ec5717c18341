"""The origin's keys: made once by ``init``, one file each, readable by their owner alone.

The listener's key is the home's ``identity.key``; the root key rests sealed under a passphrase;
all the others sign while the origin runs.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..node.home import KEY_FILE, ROLE_FILE, Birthplace, check_unborn, write_whole
from ..protocol.directory import Endpoint
from ..protocol.errors import UsageError
from ..protocol.identity import KEY_BYTES, Identity
from ..protocol.keyring import Keyring
from .repository import Repository
from .studio.sealedkey import NONCE_BYTES, SALT_BYTES, open_key, seal_key

ROLES = ("catalog", "ticket", "intake", "settlement", "publisher")
TUF_ROLES = ("targets", "snapshot", "timestamp")
TICKET_SECRET = "ticket-secret"  # noqa: S105 - a file name
CONTENT_SECRET = "content-secret"  # noqa: S105 - a file name
SEALED_ROOT = "root.sealed"
DRAFT = ".init"
"""Where an origin's parts are made; it is there only while ``init`` works, or after one that died."""
PARTS = ("keys", "tuf", ROLE_FILE, KEY_FILE)
NAME_LIMIT_CHARS = 100
ROOT_WARNING = (
    "one key alone holds the root of trust (threshold 1 of 1): keep copies of keys/root.sealed and its "
    "passphrase in two places, and move to 2 of 3 before this origin pays anybody"
)


class InitResult(NamedTuple):
    """What ``init`` made; ``passphrase`` is set only where it was generated, to be shown once."""

    name: str
    peer_id: str
    root_path: Path
    root_sha256: str
    sealed_root: Path
    passphrase: str | None
    warnings: Sequence[str]


class Keys:
    """The keys of the origin at ``home``, in memory, and the repository that publishes them."""

    def __init__(self, home: Path) -> None:
        """Read the keys.

        Raises:
            UsageError: where no origin lives, or a key file is missing, damaged or open to others.

        """
        folder = home / "keys"
        if not (home / KEY_FILE).is_file() or not folder.is_dir():
            message = f"no origin lives in {home}; `farcast origin init` makes one, --home names another"
            raise UsageError(message, reason="no_home")
        self.home = home
        self.box = Identity(_read_seed(home / KEY_FILE))
        self.catalog, self.ticket, self.intake, self.settlement, self.publisher = (
            Identity(_read_seed(folder / f"{role}.key")) for role in ROLES
        )
        self.ticket_secret = _read_seed(folder / TICKET_SECRET)
        if not (folder / CONTENT_SECRET).exists():  # a home older than protected titles
            write_whole(folder / CONTENT_SECRET, secrets.token_bytes(KEY_BYTES))
        self.content_secret = _read_seed(folder / CONTENT_SECRET)
        seeds = {role: _read_seed(folder / f"tuf-{role}.key") for role in TUF_ROLES}
        self.repository = Repository(home / "tuf", seeds)

    @property
    def keyring(self) -> Keyring:
        """What the world knows of these keys."""
        return self.repository.keyring

    def renew_root(self, passphrase: str, now: float) -> None:
        """Sign the next version of root.json; raises ``UsageError`` for a wrong passphrase."""
        seed = open_key((self.home / "keys" / SEALED_ROOT).read_bytes(), passphrase)
        self.repository.renew_root(seed, now)


def init(
    home: Path,
    name: str,
    endpoints: Sequence[Endpoint],
    passphrase: str | None,
    now: float,
    *,
    cdn: Sequence[str] = (),
) -> InitResult:
    """Make an origin in ``home``: all its keys and its trust repository, or nothing at all.

    Without a ``passphrase`` one of 125 random bits is made.

    Raises:
        UsageError: where a box lives in ``home`` already, or an argument cannot be used.

    """
    if not name.strip() or len(name) > NAME_LIMIT_CHARS or not name.isprintable():
        raise UsageError(f"--name must be 1 to {NAME_LIMIT_CHARS} printable characters")
    made = passphrase or new_passphrase()
    with Birthplace(home) as place:
        check_unborn(home)
        _clear_place(home)
        keyring = _forge(home / DRAFT, name.strip(), endpoints, cdn, passphrase=made, now=now)
        for part in PARTS:  # the key comes last: from then on the home is whole
            (home / DRAFT / part).rename(home / part)
        (home / DRAFT).rmdir()
        _sync(home)
        place.lock.release()
    keys = Keys(home)
    return InitResult(
        keyring.name,
        keys.box.peer_id,
        home / "tuf" / "root.json",
        keys.repository.root_sha256,
        home / "keys" / SEALED_ROOT,
        None if passphrase else made,
        [ROOT_WARNING],
    )


def _clear_place(home: Path) -> None:
    """Remove what an init that died left; folders that somebody else made are not touched."""
    left = (home / DRAFT).is_dir()
    for part in PARTS[:-1]:
        path = home / part
        if path.exists() and not left:
            message = f"{path} is there already and is no origin's; name an empty folder as --home"
            raise UsageError(message, reason="home_exists")
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(home / DRAFT, ignore_errors=True)


def _forge(
    draft: Path, name: str, endpoints: Sequence[Endpoint], cdn: Sequence[str], *, passphrase: str, now: float
) -> Keyring:
    """Write every key and the first repository into ``draft``."""
    folder = draft / "keys"
    folder.mkdir(mode=0o700, parents=True)
    seeds = {role: secrets.token_bytes(KEY_BYTES) for role in (*ROLES, "box")}
    tuf_seeds = {role: secrets.token_bytes(KEY_BYTES) for role in TUF_ROLES}
    root = secrets.token_bytes(KEY_BYTES)
    sealed = seal_key(root, passphrase, secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES))
    write_whole(folder / SEALED_ROOT, sealed)
    write_whole(folder / TICKET_SECRET, secrets.token_bytes(KEY_BYTES))
    write_whole(folder / CONTENT_SECRET, secrets.token_bytes(KEY_BYTES))
    for role in ROLES:
        write_whole(folder / f"{role}.key", seeds[role])
    for role, seed in tuf_seeds.items():
        write_whole(folder / f"tuf-{role}.key", seed)
    write_whole(draft / ROLE_FILE, b"origin\n")
    write_whole(draft / KEY_FILE, seeds["box"])
    public = {role: Identity(seed).key for role, seed in seeds.items()}
    keyring = Keyring(
        v=1,
        name=name,
        box=public["box"],
        catalog=[public["catalog"]],
        ticket=[public["ticket"]],
        intake=[public["intake"]],
        settlement=[public["settlement"]],
        publishers=[public["publisher"]],
        endpoints=list(endpoints),
        cdn=list(cdn),
    )
    Repository.create(draft / "tuf", keyring, root=root, seeds=tuf_seeds, now=now)
    return keyring


def new_passphrase() -> str:
    """Return 125 random bits as five groups of five letters and digits."""
    text = base64.b32encode(secrets.token_bytes(16)).decode().lower()[:25]
    return "-".join(text[at : at + 5] for at in range(0, 25, 5))


def _read_seed(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        seed = path.read_bytes()
    except OSError as error:
        message = f"the key file {path} cannot be read ({error.strerror}); bring it back from a backup"
        raise UsageError(message, reason="bad_key_file") from error
    if mode & 0o077:
        raise UsageError(
            f"{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`", reason="bad_key_file"
        )
    if len(seed) != KEY_BYTES:
        message = f"{path} is no key of {KEY_BYTES} bytes; bring it back from a backup"
        raise UsageError(message, reason="bad_key_file")
    return seed


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
