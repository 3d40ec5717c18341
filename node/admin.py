"""Talking to the running box of a home: its commands hand their work over through the admin API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ..protocol.errors import RefusedError
from .home import Role, not_running

TIMEOUT_S = 30.0
ANSWER_LIMIT_BYTES = 16 << 20


def admin_url(home: Path) -> str | None:
    """Return the base URL of the box running in ``home``, token included; None where none runs."""
    path = home / "admin.json"
    try:
        return str(json.loads(path.read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def call_admin(
    home: Path,
    method: str,
    path: str,
    body: object = None,
    *,
    role: Role = "node",
    timeout_s: float = TIMEOUT_S,
) -> Any:  # noqa: ANN401 - JSON
    """Call the admin API of the box that runs in ``home`` and return its JSON.

    Raises:
        UsageError: ``not_running`` where no box runs there, ``no_home`` where none lives there.
        RefusedError: where it says no.

    """
    base = admin_url(home)
    if base is None:
        raise not_running(home, role)
    data = None if body is None else json.dumps(body).encode()
    request = Request(base + path, data=data, method=method, headers={"content-type": "application/json"})  # noqa: S310 - our own loopback address
    try:
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - likewise
            return json.loads(response.read(ANSWER_LIMIT_BYTES))
    except HTTPError as error:
        try:
            detail = str(json.loads(error.read(ANSWER_LIMIT_BYTES))["detail"])
        except (ValueError, KeyError):
            detail = f"the box answered {error.code}"
        raise RefusedError(detail, status=error.code) from None
    except (URLError, TimeoutError) as error:
        raise not_running(home, role) from error
