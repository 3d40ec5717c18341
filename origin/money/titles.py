"""The titles a settlement meets: each manifest looked up once."""

from __future__ import annotations

from ...protocol.manifest import Manifest
from ..pulses.evidence import Manifests


class Titles:
    """Manifests by the SHA-256 digest of their block, as ``manifests`` finds them."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self.found: dict[bytes, Manifest] = {}

    def find(self, digest: bytes) -> Manifest | None:
        """Return a title's manifest; None where it was never published here."""
        manifest = self.found.get(digest) or self._manifests(digest)
        if manifest is not None:
            self.found[digest] = manifest
        return manifest
