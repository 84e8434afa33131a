"""A Prefect server with a password behind nginx with TLS, as docs/security.md sets it up, on free ports."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flows.credentials import make_auth
from tests.acceptance.api import free_port
from tests.acceptance.conftest import wait_for

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Secured:
    """What a client needs, and where everything that was written lies."""

    folder: Path
    home: Path
    url: str
    ca: Path
    auth: str
    encryption_key: str

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a client, with the CA and the password."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
        return {
            **clean,
            "PREFECT_HOME": str(self.folder / "client"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_SSL_CERT_FILE": str(self.ca),
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **more,
        }

    def client(self) -> httpx.Client:
        """A client of the API with the CA and the password."""
        user, _, password = self.auth.partition(":")
        context = ssl.create_default_context(cafile=self.ca)
        return httpx.Client(base_url=self.url, auth=(user, password), verify=context, timeout=60)


def make_certificates(folder: Path) -> Path:
    """Make a CA and a certificate for 127.0.0.1 that it signed: ca.pem, server.pem, server.key; return the CA's."""
    now = dt.datetime.now(dt.UTC)

    def builder(name: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
        named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
        return (
            x509.CertificateBuilder(*reversed(named))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        builder("test CA", authority, "test CA")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = (
        builder("127.0.0.1", server, "test CA")
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem))
    private = server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(private)
    return folder / "ca.pem"


@contextmanager
def process(command: list[str | Path], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block; what it says goes to a log."""
    with log.open("ab") as stream:
        running = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=log.parent)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(timeout=30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """Start server and nginx; yield how to reach them."""
    home, proxy = folder / "home", nginx()
    auth = make_auth(home).read_text().strip()
    (folder / "server").mkdir()
    ca = make_certificates(folder)
    plain, port = free_port(), free_port()
    made = Secured(folder, home, f"https://127.0.0.1:{port}/api", ca, auth, Fernet.generate_key().decode())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder / "server"),
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_ENCRYPTION_KEY": made.encryption_key,
        "PREFECT_UI_API_URL": made.url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(plain)]
    with ExitStack() as stack:
        stack.enter_context(process([*server], folder / "server.log", environment))
        configured = configuration(folder, port, plain)
        stack.enter_context(process([proxy, "-c", configured], folder / "nginx.log", environment))
        wait_for(lambda: _healthy(made), 240, f"the server behind nginx does not answer; see {folder}")
        yield made


def nginx() -> str:
    """Return nginx's path; it stands in sbin, which a user's PATH may lack."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found and not os.environ.get("CI"):
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    assert found, "nginx is not installed"
    return found


def configuration(folder: Path, port: int, plain: int) -> Path:
    """Fill the template that is shipped; nginx stays in the foreground, so that it ends with the test."""
    run = folder / "nginx"
    run.mkdir()
    text = (ROOT / "deployments" / "nginx.conf").read_text()
    for word, value in {
        "RUN": run,
        "LISTEN": f"127.0.0.1:{port}",
        "CERTIFICATE": folder / "server.pem",
        "KEY": folder / "server.key",
        "SERVER": f"127.0.0.1:{plain}",
    }.items():
        text = text.replace(f"${{{word}}}", str(value))
    path = run / "nginx.conf"
    # Started by root, its workers would be another user, who may not enter pytest's folders.
    user = "user root;\n" if os.geteuid() == 0 else ""
    path.write_text(f"daemon off;\n{user}{text}")
    return path


def _healthy(made: Secured) -> bool:
    try:
        return made.client().get("/health").status_code == 200
    except httpx.TransportError:
        return False
