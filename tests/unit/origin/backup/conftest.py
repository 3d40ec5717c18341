"""Backups here stretch their passphrase a little only; the commands' own tests stretch it in full."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from farcast.origin import sealedfile


@pytest.fixture(scope="module", autouse=True)
def light_stretching() -> Generator[None]:
    """Let scrypt cost a hundredth while these tests run: they write and read some forty backups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealedfile, "_COST", 2**10)
        yield
