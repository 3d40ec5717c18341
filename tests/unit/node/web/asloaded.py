"""The web player's scripts as browsers load them: as they are written, and minified."""

from __future__ import annotations

import pytest

from farcast.node.web.scripts import minified, small, written
from farcast.tests.conftest import peers_required

FORMS = ("written", "small")


def texts(form: str, *names: str) -> list[str]:
    """Return scripts in one of ``FORMS``; skips where nobody minified them, fails where they are old."""
    if form == "written":
        return [written(name).decode() for name in names]
    require_minified()
    return [small(name).decode() for name in names]


def require_minified() -> None:
    """Skip the test where the small scripts were never made, fail it where they are of other sources."""
    try:
        small("made")
    except FileNotFoundError:
        reason = "the web player's scripts are not minified: `make page`, where npm is installed"
        if peers_required():
            pytest.fail(reason)
        pytest.skip(reason)
    assert minified(), "the web player's scripts were changed since they were minified: `make page`"
