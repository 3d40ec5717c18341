"""TUF's updater without the HTTP client that it imports: a box fetches trust files by its own carriers.

``tuf.ngclient`` imports its default fetcher, and with it urllib3, for whoever brings one of his own
too: 2 to 5 MB that a box would keep for months.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_FETCHER = "tuf.ngclient.urllib3_fetcher"


class Urllib3Fetcher:
    """Stands for tuf's class of this name, and becomes it for whoever makes one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of tuf's
        return getattr(import_module(_FETCHER), cls.__name__)(*args, **kwargs)


class _Held(ModuleType):
    """Stands for the fetcher's module, which comes after all if anything else of it is asked for."""

    Urllib3Fetcher = Urllib3Fetcher

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever tuf keeps there
        if name.startswith("__"):
            raise AttributeError(name)  # what the import itself looks for
        sys.modules.pop(_FETCHER, None)
        return getattr(import_module(_FETCHER), name)


@contextmanager
def _without_urllib3() -> Generator[None]:
    held = _Held(_FETCHER)
    sys.modules.setdefault(_FETCHER, held)
    try:
        yield
    finally:
        if sys.modules.get(_FETCHER) is held:
            del sys.modules[_FETCHER]


with _without_urllib3():
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface
    from tuf.ngclient.updater import Updater

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
