"""Running boxes that all tests here share: a standalone relay, and an origin with its relay."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from farcast.tests.conftest import installed
from farcast.tests.interop.coast import Coast, settle
from farcast.tests.interop.front import FRONTS
from farcast.tests.interop.trustless import VECTORS, Relay, made, running


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Generator[Relay]:
    """Return a relay that serves the suite's fixtures and fills nothing."""
    home = tmp_path_factory.mktemp("standalone") / "home"
    made(home, sorted(VECTORS.glob("*.car")))
    with running(home) as found:
        yield found


@pytest.fixture(scope="package")
def coast(tmp_path_factory: pytest.TempPathFactory) -> Generator[Coast]:
    """Bring an origin and a relay up, with titles to fetch, and what is here of front proxies."""
    programs = {name: path for name in FRONTS if (path := installed(name)) is not None}
    coast = settle(tmp_path_factory.mktemp("coast"), programs)
    yield coast
    coast.close()
