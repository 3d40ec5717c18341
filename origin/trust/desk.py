"""The trust desk: what every box is told of this origin, under its root of trust."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from ...node.ladder.tiers import address
from ..action import Actions, Result, date
from ..cdn.edges import Edges
from ..cdn.zone import bare
from ..keys import Keys
from .places import parse_cdn, parse_endpoint


class TrustDesk:
    """Tells other addresses and signs the root again; ``edges`` sign the pull zones' tokens."""

    def __init__(self, keys: Keys, edges: Edges, clock_ms: Callable[[], int]) -> None:
        self.keys = keys
        self.edges = edges
        self._clock_ms = clock_ms
        self._telling = threading.Lock()

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {"announce": self.announce, "renew": self.renew}

    def announce(self, endpoints: list[str] | None = None, cdn: list[str] | None = None) -> Result:
        """Tell the world other addresses of this origin, or other CDN base URLs."""
        with self._telling:
            known = self.keys.keyring
            bases = known.cdn if cdn is None else [parse_cdn(text) for text in cdn]
            places = known.endpoints if endpoints is None else [parse_endpoint(text) for text in endpoints]
            signed = self.edges.signed(bases, self._clock_ms() // 1_000)
            keyring = msgspec.structs.replace(known, endpoints=places, cdn=signed)
            changed = self.keys.repository.update_keyring(keyring, self._clock_ms() / 1_000)
        return {
            "changed": changed,
            "endpoints": [address(endpoint) for endpoint in keyring.endpoints],
            "cdn": [bare(base) for base in keyring.cdn],
        }

    def sign_edges(self) -> None:
        """Tell boxes the pull zones' tokens of this hour, where they are others than the last; blocking."""
        with self._telling:
            known = self.keys.keyring
            signed = self.edges.signed(known.cdn, self._clock_ms() // 1_000)
            if signed != known.cdn:
                keyring = msgspec.structs.replace(known, cdn=signed)
                self.keys.repository.update_keyring(keyring, self._clock_ms() / 1_000)

    def renew(self, passphrase: str) -> Result:
        """Sign the next version of root.json, good for another year."""
        self.keys.renew_root(passphrase, self._clock_ms() / 1_000)
        state = self.keys.repository.root_state
        return {"version": state.version, "expires": date(int(state.expires_s * 1_000))}
