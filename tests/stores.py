"""Real object stores on loopback ports: Ceph's gateway, which decides creates, and OpenStack Swift, which does not.

`Ceph(folder)` and `Swift(folder, region)` are servers of a test's own: `start`, `stop`, `start` again with the data
kept. `shared(kind, folder)` is one server that all processes of a test run use; it ends with the last of them, however
that ends. Packages are unpacked or installed once under `.bench/stores`: `python -m tests.stores prepare`.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import email.utils
import fcntl
import hashlib
import hmac
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bench" / "stores"
CEPH_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
SWIFT_PACKAGES = ("swift==2.38.3", "setuptools<81")
MEMORY_BYTES = 4 << 30  # what Ceph may hold; it takes memory only for what is put
_DEFAULTS = {"bind_ip": "127.0.0.1", "workers": "0", "log_level": "CRITICAL", "client_timeout": "120"}


class Unavailable(Exception):
    """A server's packages cannot be had on this machine."""


@dataclass(frozen=True)
class Access:
    """How a store is reached: its S3 endpoint, and keys under the name that `credentials=` says in a store's URL."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str

    def bucket(self, name: str) -> str:
        """Make a bucket of this name and a random end; return the URL that opens it as a store."""
        made = f"{name}-{secrets.token_hex(4)}"
        self._put(made)
        where = urllib.parse.urlencode(
            {"endpoint": self.endpoint, "region": self.name, "credentials": self.name}, safe=":/"
        )
        return f"s3://{made}?{where}"

    def environment(self) -> dict[str, str]:
        """The variables in which a process finds the keys of the URLs that `bucket` returns."""
        prefix = f"CAUSEWAY_{self.name.upper().replace('-', '_')}_AWS"
        return {f"{prefix}_ACCESS_KEY_ID": self.access_key, f"{prefix}_SECRET_ACCESS_KEY": self.secret_key}

    def _put(self, bucket: str) -> None:
        # Signature version 2 is three lines, and both servers take it.
        date = email.utils.formatdate(usegmt=True)
        signed = hmac.new(self.secret_key.encode(), f"PUT\n\n\n{date}\n/{bucket}".encode(), hashlib.sha1).digest()
        headers = {"Date": date, "Authorization": f"AWS {self.access_key}:{base64.b64encode(signed).decode()}"}
        request = urllib.request.Request(f"{self.endpoint}/{bucket}", method="PUT", headers=headers)
        urllib.request.urlopen(request, timeout=60).close()


class Server:
    """Processes that serve one store from a folder; they end with the thread that starts them, at the latest."""

    def __init__(self, folder: Path, name: str) -> None:
        """Choose ports and keys for a store of this name; nothing runs yet."""
        self.folder, self.name = folder.absolute(), name
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.end)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start what does not run, and return when the store answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take the store away at once, as a power cut does; `start` brings it back with its data."""
        self._kill(list(self.running))

    def end(self) -> None:
        """Stop every process for good and remove the data."""
        atexit.unregister(self.end)
        self._kill(list(self.running))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, name: str, command: list[str | Path], environment: dict[str, str]) -> None:
        # Killed with the thread that starts them, even when that is killed itself.
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*tied, *command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )

    def _kill(self, names: list[str]) -> None:
        processes = [self.running.pop(name) for name in names if name in self.running]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            process.wait()

    def _await(self, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for name, process in self.running.items():
                if process.poll() is not None:
                    said = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{name} of {self.name} ended with {process.returncode}: {said}")
            with contextlib.suppress(OSError):
                ready()
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.name}: the store does not answer; see {self.folder}")


class Ceph(Server):
    """A Ceph cluster of one monitor and one memory store behind an S3 gateway; about 360 MB, up in 7 s.

    `stop` takes away the gateway only: what it wrote lies in the memory of the other two.
    """

    def __init__(self, folder: Path, name: str = "rgw") -> None:
        super().__init__(folder, name)
        self.monitor, self.port = free_ports(2)
        self.access = Access(name, f"http://127.0.0.1:{self.port}", secrets.token_hex(10), secrets.token_hex(20))

    def start(self) -> None:
        root = ceph_root()
        libraries = root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
        search = [libraries, root / "lib" / libraries.name, libraries / "ceph"]
        environment = {
            "PATH": f"{root}/usr/bin:{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": ":".join(map(str, search)),
            "CEPH_CONF": str(self.folder / "ceph.conf"),
        }
        if "monitor" not in self.running:
            self._make_cluster(libraries, environment)
        self._spawn("gateway", ["radosgw", "-n", "client.rgw", "-f"], environment)
        self._await(lambda: urllib.request.urlopen(self.access.endpoint, timeout=10).close())

    def stop(self) -> None:
        self._kill(["gateway"])

    def _make_cluster(self, libraries: Path, environment: dict[str, str]) -> None:
        cluster, folder = str(uuid.uuid4()), self.folder
        for name in ("mon", "osd", "rgw", "run"):
            (folder / name).mkdir()
        (folder / "ceph.conf").write_text(self._configuration(cluster, libraries))

        def run(*command: str | Path) -> None:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise RuntimeError(f"{command[0]} of {self.name} ended with {done.returncode}: {done.stderr[-2000:]}")

        monmap, osdmap = folder / "monmap", folder / "osdmap"
        run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[v2:127.0.0.1:{self.monitor}]", monmap)
        # A map that knows the one OSD already: no command has to be sent to the monitor to make it known.
        run("osdmaptool", "--createsimple", "1", osdmap)
        run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--osdmap", osdmap)
        self._spawn("monitor", ["ceph-mon", "-i", "a", "-f"], environment)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        self._spawn("osd", ["ceph-osd", "-i", "0", "-f"], environment)
        keys = (f"--access-key={self.access.access_key}", f"--secret-key={self.access.secret_key}")
        run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=tests", "--display-name=tests", *keys)

    def _configuration(self, cluster: str, libraries: Path) -> str:
        folder = self.folder
        sections: dict[str, dict[str, object]] = {
            "global": {
                "fsid": cluster,
                "mon host": f"[v2:127.0.0.1:{self.monitor}/0]",
                "ms bind msgr1": "false",
                "ms bind ipv6": "false",
                "public addr": "127.0.0.1",
                "cluster addr": "127.0.0.1",
                **{f"auth {who} required": "none" for who in ("cluster", "service", "client")},
                # Without authentication the gateway waits for ever for a secure connection to the monitor.
                **{f"ms mon {who} mode": "crc" for who in ("client", "service", "cluster")},
                "osd pool default size": 1,
                "osd pool default min size": 1,
                "osd pool default pg num": 1,
                "osd pool default pgp num": 1,
                "osd pool default pg autoscale mode": "off",
                "osd crush chooseleaf type": 0,
                "osd objectstore": "memstore",
                "memstore device bytes": MEMORY_BYTES,
                "mon allow pool size one": "true",
                "mon max pg per osd": 1000,
                # The monitor collects proposals for a second by default, and a new gateway makes eight pools.
                "paxos propose interval": 0.02,
                "paxos min wait": 0.01,
                "mon cluster log to file": "false",
                "osd class dir": libraries / "rados-classes",
                "plugin dir": libraries / "ceph",
                "erasure code dir": libraries / "ceph" / "erasure-code",
                "run dir": folder / "run",
                "admin socket": "",
                "pid file": "",
                "log file": folder / "$name.log",
            },
            "mon.a": {"mon data": folder / "mon"},
            "osd.0": {"osd data": folder / "osd"},
            "client.rgw": {
                # Without it an answer waits 40 ms for the delayed acknowledgement of the one before.
                "rgw frontends": f"beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1",
                "rgw data": folder / "rgw",
                "rgw thread pool size": 32,
            },
        }
        return _ini(sections)


class Swift(Server):
    """One region of OpenStack Swift with its S3 API: four processes, about 230 MB, up in 2 s, data in the folder.

    Two writers of one key may both be told that they created it: no chain and no table may lie here.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.ports = dict(zip(("proxy", "account", "container", "object"), free_ports(4), strict=True))
        endpoint = f"http://127.0.0.1:{self.ports['proxy']}"
        self.access = Access(name, endpoint, f"{name}:trainer", secrets.token_hex(20))

    def start(self) -> None:
        programs = swift_venv() / "bin"
        if not (self.folder / "proxy.conf").exists():
            self._configure(programs)
        for name in self.ports:
            if name not in self.running:
                self._spawn(name, [programs / f"swift-{name}-server", self.folder / f"{name}.conf"], dict(os.environ))
        for port in self.ports.values():
            self._await(lambda port=port: socket.create_connection(("127.0.0.1", port), timeout=10).close())  # type: ignore[misc]
        self._await(lambda: self.access.bucket("ready"))

    def _configure(self, programs: Path) -> None:
        common = _DEFAULTS | {"swift_dir": str(self.folder), "user": str(_user())}
        (self.folder / "devices" / "d1").mkdir(parents=True)
        swift = {"swift-hash": {"swift_hash_path_suffix": "causeway"}}
        policy = {"storage-policy:0": {"name": "only", "default": "yes"}}
        (self.folder / "swift.conf").write_text(_ini(swift | policy))
        rings = {}
        for name in ("account", "container", "object"):
            device = {
                "devices": str(self.folder / "devices"),
                "mount_check": "false",
                "bind_port": str(self.ports[name]),
            }
            app = {"use": f"egg:swift#{name}", "fallocate_reserve": "0", "disable_fallocate": "true"}
            served = {
                f"app:{name}-server": app,
                "DEFAULT": common | device,
                "pipeline:main": {"pipeline": f"{name}-server"},
            }
            (self.folder / f"{name}.conf").write_text(_ini(served))
            rings[name] = self.ports[name]
        account, user = self.access.access_key.split(":")
        filters = {
            "catch_errors": {},
            "gatekeeper": {},
            "healthcheck": {},
            "listing_formats": {},
            "s3api": {"location": self.name},
            "tempauth": {f"user_{account}_{user}": f"{self.access.secret_key} .admin"},
            "slo": {},
        }
        proxy: dict[str, dict[str, str]] = {
            "DEFAULT": common | {"bind_port": str(self.ports["proxy"])},
            "pipeline:main": {"pipeline": " ".join([*filters, "proxy-server"])},
            "app:proxy-server": {
                "use": "egg:swift#proxy",
                "account_autocreate": "true",
                # It would not ask a server again for a minute after ten errors, such as those of a start.
                "error_suppression_limit": "1000000",
            },
        }
        proxy |= {f"filter:{name}": {"use": f"egg:swift#{name}"} | more for name, more in filters.items()}
        (self.folder / "proxy.conf").write_text(_ini(proxy))
        made = [programs / "python", "-c", _RINGS, str(self.folder), json.dumps(rings)]
        subprocess.run(made, check=True, capture_output=True, timeout=120)


_RINGS = """
import json, sys
from swift.common.ring import RingBuilder
for name, port in json.loads(sys.argv[2]).items():
    ring = RingBuilder(4, 1, 1)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0})
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


def ceph_root() -> Path:
    """Return the folder into which Debian's Ceph packages are unpacked; nothing is installed.

    Raises:
        Unavailable: there is no apt, or it cannot fetch them.
    """
    folder = CACHE / "ceph"
    root, whole = folder / "root", folder / "unpacked"
    with _once(folder, whole) as needed:
        if needed:
            debs = folder / "debs"
            (debs / "partial").mkdir(parents=True, exist_ok=True)
            fetch = ["apt-get", "-q", "-y", "-o", f"Dir::Cache::archives={debs}", "-o", "Debug::NoLocking=1"]
            _run([*fetch, "--no-install-recommends", "--download-only", "install", *CEPH_PACKAGES], "Ceph")
            for package in sorted(debs.glob("*.deb")):
                _run(["dpkg", "-x", package, root], "Ceph")
            shutil.rmtree(debs)
    return root


def swift_venv() -> Path:
    """Return the virtual environment of Swift.

    Raises:
        Unavailable: pip cannot install it.
    """
    folder = CACHE / SWIFT_PACKAGES[0]
    with _once(folder, folder / "installed") as needed:
        if needed:
            venv.create(folder, with_pip=True, clear=False)
            _run([folder / "bin" / "python", "-m", "pip", "install", "-q", *SWIFT_PACKAGES], "Swift")
    return folder


@contextmanager
def shared(kind: str, folder: Path) -> Iterator[Access]:
    """Use the one server of a kind (`rgw`, or the name of a Swift region) of all that name this folder.

    A process of its own keeps it until nobody holds the folder's lock, so it also ends when its users are killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"{kind}.json"
    with (folder / f"{kind}.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (folder / f"{kind}.starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not state.exists():
                _start_keeper(kind, folder, state)
        yield Access(**json.loads(state.read_text()))


def _start_keeper(kind: str, folder: Path, state: Path) -> None:
    ceph_root() if kind == "rgw" else swift_venv()
    command = [sys.executable, "-m", "tests.stores", "keep", kind, str(folder)]
    with (folder / f"{kind}.log").open("ab") as log:
        keeper = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    while not state.exists():
        if keeper.poll() is not None:
            raise RuntimeError(f"{kind}: its server did not start: {(folder / f'{kind}.log').read_text()[-3000:]}")
        time.sleep(0.05)


def _keep(kind: str, folder: Path) -> None:
    state, data = folder / f"{kind}.json", folder / kind
    shutil.rmtree(data, ignore_errors=True)
    server = Ceph(data, kind) if kind == "rgw" else Swift(data, kind)
    with server, (folder / f"{kind}.users").open("a") as users:
        whole = state.with_suffix(".new")
        whole.write_text(json.dumps(asdict(server.access)))
        whole.rename(state)
        while True:
            time.sleep(0.5)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        state.unlink()
        server.end()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that the system gives to outgoing connections.

    A stopped server's port is so still free when it starts again.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


@contextmanager
def _once(folder: Path, whole: Path) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        needed = not whole.exists()
        yield needed
        if needed:
            whole.touch()


def _run(command: list[str | Path], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what} cannot be had: {command[0]}: {error}") from error
    if done.returncode:
        raise Unavailable(f"{what} cannot be had: {command[0]} ended with {done.returncode}: {done.stderr[-800:]}")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _ini(sections: dict[str, dict[str, str]] | dict[str, dict[str, object]]) -> str:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        _keep(sys.argv[2], Path(sys.argv[3]))
    else:
        print(ceph_root(), swift_venv(), sep="\n")
