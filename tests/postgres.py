"""A real PostgreSQL for tests: in a folder of its own, on a Unix socket only, by an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg

PASSWORD = "s3cret-word"
START_S = 60.0
_PORT = 5432  # of a socket in a folder of our own


class PostgresServer:
    """One server; ``dsn`` names a schema of its own at each call, which is as good as a database."""

    def __init__(self, programs: Path) -> None:
        """Make a cluster with the programs of a PostgreSQL installation and start it."""
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="farcast-postgres-"))
        self._names = count(1)
        user = _unprivileged()
        self._as_user = ["setpriv", "--pdeathsig", "INT"]
        if user is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            identity = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
            self._as_user += identity
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "--pgdata", "data", "--username", "farcast", "--pwfile", "password", "--no-sync",
            "--auth-local", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8",
        )  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "listen_addresses": "", "unix_socket_directories": str(self.folder), "port": _PORT,
            "fsync": "off", "shared_buffers": "16MB", "max_connections": 30,
        }  # fmt: skip
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*self._as_user, str(self._programs / "postgres"), "-D", "data", *words],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        give_up = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.address()).close()
                return
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server, whoever is connected."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(START_S)
            self._server = None

    def close(self) -> None:
        """Stop it and remove all of it."""
        self.stop()
        shutil.rmtree(self.folder)

    def address(self, schema: str = "", *, password: str = PASSWORD, folder: Path | None = None) -> str:
        """Return the address of the database, or of a schema in it."""
        host = quote(str(folder or self.folder), safe="")
        found = f"postgresql://farcast:{password}@/postgres?host={host}&port={_PORT}"
        return f"{found}&options=-csearch_path%3D{schema}" if schema else found

    def fresh(self) -> str:
        """Return the address of a new, empty schema."""
        name = f"books_{next(self._names)}"
        with psycopg.connect(self.address(), autocommit=True) as conn:
            conn.execute(f"CREATE SCHEMA {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        return self.address(name)

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as_user, str(self._programs / program), *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _unprivileged() -> pwd.struct_passwd | None:
    """Return who runs the server where we are root, which it refuses to be."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
