"""The inspection: looks at the witnesses of a sample of stored pulses, apart from the intake's way.

What was stored waits here in bounds; after a restart the newest part of the log is looked at again. A
false witness is told to the intake, which writes it into its log, so that every settlement from the
raw log comes to the same.
"""

from __future__ import annotations

import logging
import posixpath
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter

from ...node.playback.timeline import PLAYLIST_LIMIT_BYTES, parse_media
from ...protocol.cid import Cid
from ...protocol.errors import RemoteError
from ...protocol.manifest import Manifest
from ...protocol.pulse import Pulse, Viewing, open_viewing, read_pulse
from ...protocol.ticket import TicketOffice
from ...protocol.unixfs import content, leaves, listing, resolve
from .admission import EQUIVOCATION, PENDING, STORED, Frame, arrival
from .witness import FALSE, RESULTS, Sample, Segment, judge, nearest

log = logging.getLogger(__name__)

LOOK_S = 5.0
WAITING_BYTES = 64 << 20
"""Of stored frames; the oldest are passed over where more wait."""
TURN = 64
"""Witnesses looked at in one turn."""
PLAYLISTS_KEPT = 64


class Inspection:
    """Hears of what is stored and looks at a sample of it; ``look`` blocks, everything is thread-safe.

    ``beacon`` gives a beacon's value by its number, ``block`` a block of this origin's store, ``condemn``
    takes a pulse whose witness is false.
    """

    def __init__(
        self,
        office: TicketOffice,
        sample: Sample,
        beacon: Callable[[int], bytes | None],
        manifests: Callable[[bytes], Manifest | None],
        block: Callable[[Cid], bytes | None],
        registry: CollectorRegistry,
    ) -> None:
        self._office = office
        self._sample = sample
        self._beacon = beacon
        self._manifests = manifests
        self._block = block
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._at_work = False  # the old part of the log is read once more at every start
        self._chosen: deque[tuple[Pulse, bytes]] = deque()
        self._segments: OrderedDict[tuple[Cid, int], list[Segment]] = OrderedDict()
        self._results = Counter(
            "farcast_origin_witness_checks",
            "Content witnesses of the sample, by what they showed.",
            ["result"],
            registry=registry,
        )
        self._passed = Counter(
            "farcast_origin_witness_passed_over_frames",
            "Stored posts and batches that left the inspection's queue unseen.",
            registry=registry,
        )
        for result in RESULTS:
            self._results.labels(result)

    def hear(self, frame: Frame) -> None:
        """Hear of a frame that the intake's log holds."""
        with self._lock:
            self._frames.append(frame)
            self._waiting_bytes += len(frame.data)
            while self._waiting_bytes > WAITING_BYTES and len(self._frames) > 1:
                self._waiting_bytes -= len(self._frames.popleft().data)
                self._passed.inc(self._at_work)

    def look(self, condemn: Callable[[bytes], None]) -> int:
        """Look at up to 64 witnesses; false ones go to ``condemn``. Returns how many were looked at."""
        self._at_work = True
        self._choose()
        looked = 0
        while self._chosen and looked < TURN:
            pulse, data = self._chosen.popleft()
            looked += 1
            try:
                viewing = open_viewing(pulse, self._office.key(pulse.tid))
            except RemoteError:
                continue  # it counts nothing as it is
            result = judge(pulse, viewing, self._beacon, self.blocks)
            self._results.labels(result).inc()
            if result == FALSE:
                log.warning("a pulse's witness is false; it counts nothing and is kept as evidence")
                condemn(data)
        return looked

    def _choose(self) -> None:
        while True:
            with self._lock:
                if not self._frames or len(self._chosen) > TURN:
                    return
                frame = self._frames.popleft()
                self._waiting_bytes -= len(frame.data)
            for data, verdict in zip(arrival(frame).pulses, frame.verdicts, strict=True):
                if verdict in (STORED, PENDING, EQUIVOCATION):
                    pulse, _ = read_pulse(data)
                    if pulse.delta_ms and pulse in self._sample:  # one that claims nothing proves nothing
                        self._chosen.append((pulse, data))

    def blocks(self, viewing: Viewing) -> Iterator[bytes | None] | None:
        """Return the blocks that may be a witness, as ``judge`` wants them."""
        manifest = self._manifests(viewing.manifest)
        if manifest is None or viewing.rendition >= len(manifest.renditions):
            return None
        return self._candidates(manifest, viewing)

    def _candidates(self, manifest: Manifest, viewing: Viewing) -> Iterator[bytes | None]:
        try:
            segments = self._segments_of(manifest, viewing.rendition)
        except RemoteError:  # a part of the folder is not here any more
            yield None
            return
        for segment in nearest(segments, viewing.position_ms):
            try:
                yield self._block(leaves(Cid.decode(segment.file), self._block)[0].cid)
            except (RemoteError, IndexError):
                yield None

    def _segments_of(self, manifest: Manifest, rendition: int) -> list[Segment]:
        """Return the segments of a rendition as its playlist lists them; raises ``RemoteError``."""
        key = (manifest.root_cid, rendition)
        found = self._segments.get(key)
        if found is None:
            named = manifest.renditions[rendition]
            text = self._read(manifest.root_cid, named.path).decode(errors="replace")
            slots = parse_media(text, named.path, named.kind, rendition)
            folders = {
                path: self._files(manifest.root_cid, path) for path in set(map(posixpath.dirname, slots))
            }
            found = [
                Segment(slot.start_ms, folders[posixpath.dirname(path)][posixpath.basename(path)])
                for path, slot in slots.items()
            ]
            self._segments[key] = found
            while len(self._segments) > PLAYLISTS_KEPT:
                self._segments.popitem(last=False)
        return found

    def _files(self, root: Cid, path: str) -> defaultdict[str, bytes]:
        """Return the files of a folder by name; of one that is not in it there are no bytes to decode."""
        links = listing(resolve(root, path.split("/"), self._block), self._block)
        return defaultdict(bytes, {link.name: link.cid.encode() for link in links})

    def _read(self, root: Cid, path: str) -> bytes:
        parts: list[bytes] = []
        for leaf in leaves(resolve(root, path.split("/"), self._block), self._block):
            data = self._block(leaf.cid)
            if data is None or leaf.offset > PLAYLIST_LIMIT_BYTES:
                raise RemoteError(f"{path} is not here whole", reason="not_held")
            parts.append(content(leaf, data))
        return b"".join(parts)
