"""One running origin and relay for all tests with real peers."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from farcast.tests.interop.coast import Coast, settle


@pytest.fixture(scope="session")
def coast(tmp_path_factory: pytest.TempPathFactory) -> Generator[Coast]:
    """Bring everybody up."""
    coast = settle(tmp_path_factory.mktemp("coast"))
    yield coast
    coast.close()
