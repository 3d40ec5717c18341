"""One libtorrent peer, run by the system's Python: ``swarm_torrent.py FOLDER HOST ADDRESS...``.

Host 0 has the film and makes the torrent. Each prints ``ready``, waits for ``go``, knows all others, and
receivers print in how many seconds they had it all. Tuned: everybody is unchoked, queues are long, no
discovery, no limits.
"""

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

libtorrent: Any = import_module("libtorrent")  # Debian's; no package index has it for every Python

PORT = 6881
PIECE_BYTES = 256 << 10
SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "unchoke_slots_limit": -1,
    "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 2000,
    "send_buffer_watermark": 4 << 20,
    "allow_multiple_connections_per_ip": True,
    "connection_speed": 100,
    "request_timeout": 20,
    "alert_mask": 0,
}


def main() -> None:
    """Be one peer."""
    folder, host, addresses = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torrent = folder / "film.torrent"
    if host == 0:
        files = libtorrent.file_storage()
        libtorrent.add_files(files, str(folder / "0" / "film"))
        made = libtorrent.create_torrent(files, PIECE_BYTES)
        libtorrent.set_piece_hashes(made, str(folder / "0"))
        torrent.write_bytes(libtorrent.bencode(made.generate()))
    say("ready")
    sys.stdin.readline()
    started = time.monotonic()
    session = libtorrent.session({**SETTINGS, "listen_interfaces": f"{addresses[host]}:{PORT}"})
    wanted = libtorrent.add_torrent_params()
    wanted.ti = libtorrent.torrent_info(str(torrent))
    wanted.save_path = str(folder / str(host))
    handle = session.add_torrent(wanted)
    for other, address in enumerate(addresses):
        if other != host:
            handle.connect_peer((address, PORT))
    while host == 0 or not handle.status().is_seeding:
        time.sleep(0.01)
    say(str(time.monotonic() - started))
    sys.stdin.readline()


def say(line: str) -> None:
    """Say a line to the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
