"""A real Kubo as a daemon for the tests, with no traffic but what a test asks for."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

START_S, STOP_S, COMMAND_S = 20.0, 10.0, 60.0
READY = b"Daemon is ready"


class Daemon:
    """``ipfs daemon`` over a repository of its own on random ports of loopback."""

    def __init__(self, program: str, home: Path, settings: Mapping[str, str] | None = None) -> None:
        """Make the repository and start; ``settings`` are more environment variables."""
        home.mkdir(parents=True, exist_ok=True)
        self._program = program
        self._repo = home / "repo"
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "IPFS_PATH": str(self._repo),
            "IPFS_TELEMETRY": "off",
            **(settings or {}),
        }
        self.run("init", "--profile=test,unixfs-v1-2025")
        self.run("config", "--json", "Internal.Bitswap.ProviderSearchDelay", json.dumps("10ms"))
        self._log = (home / "daemon.log").open("wb")
        self._process = subprocess.Popen(
            [program, "daemon"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._wait()

    @property
    def stored(self) -> bytes:
        """Every byte of its block store, one after another."""
        blocks = sorted((self._repo / "blocks").rglob("*.data"))
        return b"".join(path.read_bytes() for path in blocks)

    @property
    def rpc(self) -> str:
        """The base URL of its RPC API."""
        _, _, host, _, port = (self._repo / "api").read_text().strip().split("/")
        return f"http://{host}:{port}"

    @property
    def gateway(self) -> str:
        """The base URL of its gateway."""
        return (self._repo / "gateway").read_text().strip()

    def run(self, *arguments: str, stdin: bytes = b"", timeout_s: float = COMMAND_S) -> bytes:
        """Run one command, through the daemon while that is up, and return what it prints."""
        done = subprocess.run(
            [self._program, *arguments],
            env=self._env,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout

    def pins(self) -> set[str]:
        """Return the roots pinned recursively."""
        return set(self.run("pin", "ls", "--type=recursive", "--quiet").decode().split())

    def get(self, path: str, into: Path, *options: str) -> dict[str, bytes]:
        """Get a folder or file, and return its files by their paths below ``into``."""
        self.run("get", *options, f"--output={into}", path)
        return {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()}

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _wait(self) -> None:
        """Return when it says that it is ready."""
        out, said, deadline = self._process.stdout, b"", time.monotonic() + START_S
        assert out is not None
        while READY not in said:
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(out.fileno(), 4_096) if ready else b""
            if not more:
                self.stop()
                raise AssertionError((said, Path(self._log.name).read_text()))
            said += more
