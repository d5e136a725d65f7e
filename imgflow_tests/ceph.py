"""A real S3 server for tests: Ceph's gateway with one monitor and one storage daemon, on loopback.

Everything lies in one folder and in memory, and ends with `stop`.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from imgflow_tests.patience import PATIENCE_SECONDS

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw")
ACCESS_KEY = "imgflow-access"
SECRET_KEY = "imgflow-secret-0123456789"  # noqa: S105 - of a server that lives as long as a test

CONFIG = """
[global]
fsid = {fsid}
run dir = {run}
admin socket = {run}/$name.asok
log file = {run}/$name.log
pid file =
mon host = v1:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr2 = false
keyring = {run}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
debug none = 0/0
[mon]
paxos propose interval = .05
paxos min wait = .01
mon data = {run}/mon.$id
auth allow insecure global id reclaim = false
[osd]
osd data = {run}/osd.$id
osd objectstore = memstore
memstore device bytes = 4294967296
osd class load list = *
osd class default list = *
osd crush update on start = false
osd class update on start = false
[client.rgw.a]
rgw frontends = beast endpoint={address}:{port} tcp_nodelay=1
rgw data = {run}/rgw
rgw enable usage log = false
rgw enable quota threads = false
rgw run sync thread = false
rgw dynamic resharding = false
"""


def is_installed() -> bool:
    """Whether Debian's packages are there."""
    return all(map(shutil.which, PROGRAMS))


class Ceph:
    """One cluster of one machine, with a fresh user.

    Args:
        run: folder for all of it.
        prefix: of all commands, for another machine than this one.
        address: that the gateway listens on.
        port: that it listens on; 0: a free one.
        keys: of its user.
    """

    def __init__(
        self,
        run: Path,
        *,
        prefix: Sequence[str] = (),
        address: str = "127.0.0.1",
        port: int = 0,
        keys: tuple[str, str] = (ACCESS_KEY, SECRET_KEY),
    ) -> None:
        self.run, self.prefix, self.address, self.keys = run, prefix, address, keys
        self.port, self.mon_port = port or free_port(), free_port()
        self.endpoint = f"http://{self.address}:{self.port}"
        self.config = run / "ceph.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for folder in ("mon.a", "osd.0", "rgw"):
            (self.run / folder).mkdir(parents=True)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        self.config.write_text(
            CONFIG.format(
                fsid=fsid,
                run=self.run,
                address=self.address,
                port=self.port,
                mon_port=self.mon_port,
            )
        )
        address = f"[v1:127.0.0.1:{self.mon_port}]"
        monmap = str(self.run / "monmap")
        self._call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        keyring = str(self.run / "keyring")
        for position, (name, caps) in enumerate(
            {
                "mon.": ("mon", "allow *"),
                "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
                "osd.0": ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"),
                "client.rgw.a": ("mon", "allow rw", "osd", "allow rwx"),
            }.items()
        ):
            create = ["--create-keyring"] if position == 0 else []
            pairs = zip(caps[::2], caps[1::2], strict=True)
            rights = [part for pair in pairs for part in ("--cap", *pair)]
            self._call("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *rights)
        conf = ("-c", str(self.config))
        self._call("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        self._spawn("ceph-mon", *conf, "-i", "a", "-f")
        self._wait("the monitor", lambda: self._ceph("mon", "stat"))
        self._ceph("osd", "new", osd, "0")
        self._ceph("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=local")
        self._call("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("ceph-osd", *conf, "-i", "0", "-f")
        self._wait("the storage daemon", lambda: "1 up" in self._ceph("osd", "stat"))
        self._spawn("radosgw", *conf, "-n", "client.rgw.a", "-f")
        self._wait("the gateway", lambda: listens(self.port, self.address))
        self._make_user("imgflow", *self.keys, "--caps", "user-policy=*")

    def start_gateway(self, dns_name: str) -> int:
        """Start one more gateway, below whose name a bucket is a part of the host name.

        Without a name, as the first one, it takes buckets from the path whatever the host.
        """
        port = free_port()
        self._spawn(
            *("radosgw", "-c", str(self.config), "-n", "client.rgw.a", "-f"),
            *("--admin-socket", f"{self.run}/gateway-{port}.asok"),
            *("--rgw-frontends", f"beast endpoint=127.0.0.1:{port} tcp_nodelay=1"),
            *("--rgw-dns-name", dns_name),
        )
        self._wait("the gateway", lambda: listens(port))
        return port

    def stop(self) -> None:
        """End all of it; nothing is kept."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGKILL)
            process.wait()

    def create_user(self, name: str) -> tuple[str, str]:
        """Make a user who may do nothing yet; returns both its keys."""
        keys = f"{name}-access", f"{name}-secret-0123456789"
        self._make_user(name, *keys)
        return keys

    def _make_user(self, name: str, access_key: str, secret_key: str, *more: str) -> None:
        self._call(
            "radosgw-admin", "-c", str(self.config), "-n", "client.rgw.a", "user", "create",
            "--uid", name, "--display-name", name, "--access-key", access_key,
            "--secret-key", secret_key, "--max-buckets", "100000", *more,
        )  # fmt: skip

    def requests(self) -> int:
        """How many requests the gateway has had so far."""
        socket_of_gateway = str(self.run / "client.rgw.a.asok")
        counters = self._call("ceph", "--admin-daemon", socket_of_gateway, "perf", "dump", "rgw")
        return int(json.loads(counters)["rgw"]["req"])

    def _ceph(self, *arguments: str) -> str:
        return self._call("ceph", "-c", str(self.config), "--connect-timeout", "10", *arguments)

    def _call(self, *command: str) -> str:
        command = (*self.prefix, *command)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def _spawn(self, *command: str) -> None:
        with (self.run / f"{command[0]}.out").open("ab") as out:
            self._processes.append(
                subprocess.Popen(
                    (*self.prefix, *command), stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
            )

    def _wait(self, what: str, is_ready: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if is_ready() is not False:
                    return
            except RuntimeError:
                if time.monotonic() > give_up:
                    raise
            if time.monotonic() > give_up:
                raise RuntimeError(f"{what} did not start; see {self.run}")
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"a part of Ceph ended; see {self.run}")
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
