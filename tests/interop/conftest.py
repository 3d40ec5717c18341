"""One standalone relay with every fixture imported, for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farcast.tests.interop.trustless import VECTORS, Relay, made, running


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Return a relay that serves the suite's fixtures and fills nothing."""
    home = tmp_path_factory.mktemp("standalone") / "home"
    made(home, sorted(VECTORS.glob("*.car")))
    with running(home) as found:
        yield found
