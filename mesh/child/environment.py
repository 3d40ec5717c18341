"""What a child process gets of this one's environment: there may be secrets in the rest."""

from __future__ import annotations

import os

PASSED = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


def passed_on(*more: str) -> dict[str, str]:
    """Return what any program needs, and what is named besides."""
    return {name: os.environ[name] for name in (*PASSED, *more) if name in os.environ}
