"""The heap: memory that was freed goes back to the system, so that an idle box is a small one."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Return freed memory to the system where the C library can (``malloc_trim(3)``, glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
