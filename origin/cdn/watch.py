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

LOOK_S, AGAIN_S = 900.0, 60.0
"""Between two looks at zones that are well, and while one is not."""

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
        self._zones = Gauge(
            "farcast_origin_cdn_zones",
            "Pull zones by what was seen last: serving, of these caching for certain; or troubled.",
            ["state"],
            registry=registry,
        )
        self._note(())

    async def look(self, keyring: Keyring, root: Cid | None) -> Sequence[Look]:
        """Ask each zone for the block ``root``, or for the checkpoint where nothing is listed."""
        zones = pull_zones(keyring)
        path = CHECKPOINT_PATH if root is None else block_path(root)
        right: Callable[[bytes], bool] = bool if root is None else root.matches
        async with HttpDialer(allow_private=self._allow_private) as dialer:
            looks = await asyncio.gather(*(look(zone, dialer, path, right) for zone in zones))
        self._note(looks)
        return looks

    def pause_s(self) -> float:
        """Return how long to wait for the next look."""
        return AGAIN_S if any(one.trouble for one in self.looks) else LOOK_S

    def facts(self) -> list[dict[str, str]]:
        """Return what was seen last, for JSON."""
        return [one._asdict() for one in self.looks]

    def _note(self, looks: Sequence[Look]) -> None:
        before = {one.name: one.trouble for one in self.looks}
        well = [one for one in looks if not one.trouble]
        self._zones.labels("serving").set(len(well))
        self._zones.labels("caching").set(sum(one.caches == "yes" for one in well))
        self._zones.labels("troubled").set(len(looks) - len(well))
        for one in looks:
            if one.trouble and one.trouble != before.get(one.name):
                log.warning("the pull zone %s does not serve: %s", one.name, one.trouble)
        self.looks = looks
