"""The air: a TCP way that carries so many bits a second, and a Reticulum instance at each end of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

CHUNK_BYTES = 16
_WHOLE = """
[reticulum]
share_instance = No
enable_transport = No
panic_on_interface_error = Yes

[interfaces]
  [[air]]
    enabled = Yes
"""
SERVER = "    type = TCPServerInterface\n    listen_ip = 127.0.0.1\n    listen_port = {port}\n"
CLIENT = "    type = TCPClientInterface\n    target_host = 127.0.0.1\n    target_port = {port}\n"


def configured(folder: Path, interface: str, port: int) -> Path:
    """Write the configuration of an instance with one interface, and return its folder."""
    folder.mkdir(parents=True)
    (folder / "config").write_text(_WHOLE + interface.format(port=port))
    return folder


class Air:
    """Carries what comes to ``port`` to ``beyond`` and back, at ``bps`` each way; use as ``async with``."""

    def __init__(self, beyond: int, bps: int) -> None:
        self.beyond, self.bps = beyond, bps
        self.carried = [0, 0]
        """Bytes out and back."""
        self._tasks = set[asyncio.Task[None]]()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of all that passes."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.beyond)
        except OSError:
            writer.close()
            return
        for way, (source, target) in enumerate(((reader, far_writer), (far_reader, writer))):
            task = asyncio.ensure_future(self._pass(way, source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, way: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Let bytes through one way, each as late as the rate makes it."""
        loop = asyncio.get_running_loop()
        free_at = 0.0
        try:
            while data := await source.read(CHUNK_BYTES):
                free_at = max(free_at, loop.time()) + len(data) * 8 / self.bps
                await asyncio.sleep(free_at - loop.time())
                target.write(data)
                self.carried[way] += len(data)
        except OSError:
            pass
        finally:
            target.close()
