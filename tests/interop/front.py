"""The shipped front-proxy files, run by the real programs with a certificate of a private authority."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import ifaddr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farcast.tests.wire.street import ROOT, until

FILES = ROOT / "config" / "front"
START_S, STOP_S = 20.0, 10.0
_SIX = "::1" in {str(found.ip[0]) for adapter in ifaddr.get_adapters() for found in adapter.ips}
"""``localhost`` may mean this one first."""
_DAY = dt.timedelta(days=1)


class Authority:
    """A private certificate authority: its certificate, and one for ``localhost``, as PEM files."""

    def __init__(self, folder: Path) -> None:
        """Make both in ``folder``."""
        now = dt.datetime.now(dt.UTC)
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private authority")])
        builder = (
            x509.CertificateBuilder()
            .issuer_name(root)
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )
        authority = (
            builder.subject_name(root)
            .public_key(root_key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(root_key, hashes.SHA256())
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        leaf = (
            builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(root_key, hashes.SHA256())
        )
        self.path = _write(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM))
        self.certificate = _write(folder / "front.pem", leaf.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.key = _write(folder / "front.key", pem)


class Front:
    """A front proxy in a process of its own."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path, port: int) -> None:
        """Start ``command`` and wait until ``port`` is listened on."""
        self._log = (folder / "front.log").open("wb")
        self._process = subprocess.Popen(
            command, env={"PATH": os.environ["PATH"], **environment}, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

        def listens() -> bool:
            assert self._process.poll() is None, (folder / "front.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens, START_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def caddy(program: str, folder: Path, authority: Authority, port: int, upstream: int) -> Front:
    """Run the shipped Caddyfile, told by its environment alone."""
    environment = {
        "HOME": str(folder),
        "CADDY_ADMIN": f"unix/{folder}/admin.sock",
        "FARCAST_FRONT": f"https://localhost:{port}",
        "FARCAST_TLS": f"tls {authority.certificate} {authority.key}",
        "FARCAST_UPSTREAM": f"127.0.0.1:{upstream}",
    }
    return Front([program, "run", "--config", str(FILES / "Caddyfile")], environment, folder, port)


def nginx(program: str, folder: Path, authority: Authority, port: int, upstream: int) -> Front:
    """Run the shipped nginx file in the smallest main configuration, with another name and other paths."""
    text = (FILES / "nginx.conf").read_text()
    live = "/etc/letsencrypt/live/relay.example"
    for old, new in (
        ("127.0.0.1:7433;", f"127.0.0.1:{upstream};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("    listen [::]:443 ssl http2;\n", f"    listen [::1]:{port} ssl http2;\n" if _SIX else ""),
        ("server_name relay.example", "server_name localhost"),
        (f"{live}/fullchain.pem", str(authority.certificate)),
        (f"{live}/privkey.pem", str(authority.key)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "farcast.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = f"daemon off; pid {folder}/pid; error_log stderr warn; events {{}}"
    main += f" http {{ {paths} include farcast.conf; }}"
    (folder / "nginx.conf").write_text(main)
    return Front(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"], {}, folder, port
    )


FRONTS = {"caddy": caddy, "nginx": nginx}


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o644)  # nginx's workers run as another user, the key is read before
    return path
