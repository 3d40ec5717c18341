"""A watch over the pull zones: whether each answers with the right bytes, and caches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge

from ...node.doctor.pullzone import CHECKPOINT_PATH, Look, look
from ...node.http.dial import HttpDialer
from ...node.ladder.tiers import pull_zones
from ...protocol.cid import Cid
from ...protocol.keyring import Keyring
from .paths import block_path

LOOK_S = 900.0

log = logging.getLogger(__name__)


def described(look: Mapping[str, str]) -> str:
    """Return the facts of one look as a sentence."""
    caching = {"yes": "answers and caches", "no": "answers and keeps nothing"}
    said = look["trouble"] or caching.get(look["caches"], "answers; whether it caches it does not say")
    return f"{look['name']}: {said}"


class Watch:
    """Looks at every announced zone and remembers what it saw; ``looks`` are the newest."""

    def __init__(self, registry: CollectorRegistry, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.looks: Sequence[Look] = ()
        self._up = Gauge(
            "farcast_origin_cdn_up",
            "Whether a pull zone answered with the right bytes when it was asked last.",
            ["zone"],
            registry=registry,
        )
        self._caches = Gauge(
            "farcast_origin_cdn_caches",
            "Whether it answered from its cache: 1 yes, 0 no, -1 where it does not say.",
            ["zone"],
            registry=registry,
        )

    async def look(self, keyring: Keyring, root: Cid | None) -> Sequence[Look]:
        """Ask each zone for the block ``root``, or for the checkpoint where nothing is listed."""
        zones = pull_zones(keyring)
        path = CHECKPOINT_PATH if root is None else block_path(root)
        right: Callable[[bytes], bool] = bool if root is None else root.matches
        async with HttpDialer(allow_private=self._allow_private) as dialer:
            looks = await asyncio.gather(*(look(zone, dialer, path, right) for zone in zones))
        self._note(looks)
        return looks

    def facts(self) -> list[dict[str, str]]:
        """Return what was seen last, for JSON."""
        return [one._asdict() for one in self.looks]

    def _note(self, looks: Sequence[Look]) -> None:
        before = {one.name: one.trouble for one in self.looks}
        self._up.clear()
        self._caches.clear()
        for one in looks:
            self._up.labels(one.name).set(not one.trouble)
            self._caches.labels(one.name).set({"yes": 1, "no": 0}.get(one.caches, -1))
            if one.trouble and one.trouble != before.get(one.name):
                log.warning("the pull zone %s does not serve: %s", one.name, one.trouble)
        self.looks = looks
