"""The patient: a home as the doctor finds it, whether its box runs or not; nothing in it is changed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...protocol.errors import FarcastError, UsageError
from ...protocol.identity import Identity
from ...protocol.keyring import KEYRING_TARGET, Keyring, open_keyring
from ...protocol.ports import Source, TierName
from ..catalog.join import known_origin
from ..catalog.rootfile import Hint, read_root
from ..catalog.trust import Trust
from ..home import KEY_FILE, ROLE_FILE, Role, default_home, no_home, read_identity
from ..ladder.tiers import address
from ..settings import Settings

ROLES: tuple[Role, ...] = ("node", "relay", "origin")


@dataclass(frozen=True)
class Patient:
    """What is known of a home before anything is asked; an empty trouble is none."""

    home: Path
    role: Role
    settings: Settings
    identity: Identity | None
    hint: Hint | None
    keyring: Keyring | None
    origin: list[Source]
    url: str
    port: int
    pid: int
    standalone: bool = False
    settings_trouble: str = ""
    trust_trouble: str = ""

    @property
    def running(self) -> bool:
        """Whether the box of this home runs."""
        return self.pid > 0


def find_home(named: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the home that is named, or else the first of a node's, a relay's and an origin's there is.

    Raises:
        UsageError: ``no_home`` where no box lives there.

    """
    homes = [named] if named else [default_home(role, environ) for role in ROLES]
    for home in homes:
        if (home / KEY_FILE).exists() or (home / ROLE_FILE).exists():
            return home
    if named is None:
        message = f"there is no box at {', '.join(map(str, homes))}; name its home with --home"
        raise UsageError(message, reason="no_home")
    raise no_home(named, "node")


def examine(home: Path, environ: Mapping[str, str]) -> Patient:
    """Read what is in ``home`` without taking its lock; what cannot be read is a trouble, never an error."""
    role = _role(home)
    settings_trouble, trust_trouble = "", ""
    try:
        settings = Settings.load(home, environ)
    except UsageError as error:
        settings, settings_trouble = Settings.load(None, {}), str(error)
    try:
        identity = read_identity(home)
    except UsageError:
        identity = None  # what is wrong with it is the keys' finding
    hint: Hint | None = None
    keyring: Keyring | None = None
    origin = list[Source]()
    try:
        if role == "origin":
            hint = read_root((home / "tuf" / "root.json").read_bytes())
            origin = [Source(TierName.CDN, "origin", address(where), hint.box) for where in hint.endpoints]
            keyring = _published(home / "tuf")
        elif (home / "trust").is_dir():
            trust = Trust(home / "trust", lambda _: None)
            hint, keyring, origin = trust.hint, trust.keyring, known_origin(trust)
    except (FarcastError, OSError) as error:
        trust_trouble = str(error)
    url, port, pid = _running(home)
    standalone = (home / "standalone").is_file() and not (home / "trust").exists()
    return Patient(
        home,
        role,
        settings,
        identity,
        hint,
        keyring,
        origin,
        url,
        port,
        pid,
        standalone,
        settings_trouble,
        trust_trouble,
    )


def _published(folder: Path) -> Keyring | None:
    """Return what an origin's own repository says of it; None where it cannot be read."""
    try:
        versions = [int(path.name.partition(".")[0]) for path in folder.glob("[0-9]*.targets.json")]
        found = json.loads((folder / f"{max(versions)}.targets.json").read_bytes())
        digest = found["signed"]["targets"][KEYRING_TARGET]["hashes"]["sha256"]
        return open_keyring((folder / "targets" / f"{digest}.{KEYRING_TARGET}").read_bytes())
    except (FarcastError, OSError, ValueError, KeyError, TypeError):
        return None


def _role(home: Path) -> Role:
    """Return the role of the home, by its folders where the file that says so is lost."""
    try:
        text = (home / ROLE_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    for role in ROLES:
        if text == role:
            return role
    return "origin" if (home / "tuf").is_dir() else "node"


def _running(home: Path) -> tuple[str, int, int]:
    """Return the admin address, the public port and the process of the running box, else empty and 0."""
    try:
        found = json.loads((home / "admin.json").read_bytes())
        url, port, pid = str(found["url"]), int(found["port"]), int(found["pid"])
        with suppress(PermissionError):  # somebody else's process, but it is there
            os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "", 0, 0
    return url, port, pid
