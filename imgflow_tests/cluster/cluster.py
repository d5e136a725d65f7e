"""`docker-compose.yml` without containers: each service's own command on a machine of its own.

    with Cluster(folder) as cluster:        # machines; nothing runs yet
        cluster.up()                        # in the order of the file, each when it is well
        cluster.add("worker-2", like="worker")
        cluster.start("worker-2")
        cluster.kill("worker")              # SIGKILL to everything on that machine
        cluster.stop("redis")               # SIGTERM, as `docker compose stop`
        cluster.start("redis")              # with the data it had
        cluster.network.cut("worker-2")     # no packet comes through, `heal` undoes it
        cluster.execute("worker", "imgflow", "status", "--json")

Commands, variables, configuration files and health checks are those of the file; entry point and
further variables those of the `Dockerfile`. Only what comes in other people's images is stood in
for, see `stand_ins.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import boto3
import psutil
import sqlalchemy as sa
from botocore.config import Config

from imgflow.catalog.database.engine import make_engine
from imgflow_tests import ceph
from imgflow_tests.cluster.compose import ROOT, ServiceSpec, read_compose, read_dockerfile
from imgflow_tests.cluster.network import Machine, make_network, on
from imgflow_tests.cluster.stand_ins import (
    S3_PORT,
    Postgres,
    Prepared,
    make_s3,
    of_this_installation,
    prepare_redis,
)
from imgflow_tests.patience import PATIENCE_SECONDS

STOP_SECONDS = 60
IMAGE_HOME = "/var/lib/imgflow"


def generated_variables() -> dict[str, str]:
    """What `deploy/make-env.sh` prints."""
    made = subprocess.run(
        ["sh", ROOT / "deploy" / "make-env.sh"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in made.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Running:
    """A process of a service, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path


class Cluster:
    """The services of the compose file, each on its machine."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Make the machines.

        Args:
            folder: for data and logs.
            variables: of the `.env` besides the generated ones, such as `WORKERS="2"`.
        """
        self.folder = folder
        self.variables = {**generated_variables(), **variables}
        self.specs = {
            name if number == 1 else f"{name}-{number}": spec
            for name, spec in read_compose(self.variables).items()
            for number in range(1, spec.replicas + 1)
        }
        self.image = read_dockerfile()
        self.network = make_network()
        self.machines: dict[str, Machine] = {name: self.network.add(name) for name in self.specs}
        self.network.know_each_other()
        self._running: dict[str, Running] = {}
        self._ceph: ceph.Ceph | None = None
        self._postgres = Postgres()
        (folder / "logs").mkdir(parents=True)
        (folder / "app").mkdir()
        shutil.copytree(ROOT / "deploy", folder / "app" / "deploy")
        if not self.network.has_namespaces:
            workspace = folder / "app" / "deploy" / "workspace.yaml"
            workspace.write_text(
                workspace.read_text().replace(
                    "host: code-server", f"host: {self.address('code-server')}"
                )
            )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything, at once."""
        for name in list(self._running):
            self.kill(name)
        if self._ceph is not None:
            self._ceph.stop()
        self.network.close()
        self._postgres.close()

    # Services

    def up(self, *without: str) -> None:
        """Start every service in the order of the file, and wait until each is well."""
        order = TopologicalSorter({name: set(spec.depends_on) for name, spec in self.specs.items()})
        for name in order.static_order():
            if name not in without:
                self.start(name, wait=bool(self.dependents(name)))
        for name in self.specs:
            if name not in without:
                self.wait(name)

    def dependents(self, name: str) -> list[str]:
        """The services that wait for one."""
        return [other for other, spec in self.specs.items() if name in spec.depends_on]

    def add(self, name: str, *, like: str) -> None:
        """A further service like another, as `--scale` makes it; it is not started yet."""
        self.specs[name] = self.specs[like]
        self.machines[name] = self.network.add(name)
        self.network.know_each_other()

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a service with the data it had, and wait until its health check is content."""
        spec = self.specs[name]
        if name == "s3":
            self._ceph = make_s3(self.machines[name], self.folder / "ceph", self.variables)
            self._ceph.start()
            return
        command, environment = self._prepared(replace(spec, name=name))
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as out:
            self._running[name] = Running(
                subprocess.Popen(
                    self._on(name, command),
                    env=environment,
                    cwd=self.folder / "app",
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                ),
                log,
            )
        if wait:
            self.wait(name)

    def wait(self, name: str) -> None:
        """Wait until a service is well, or has ended well if it is to end."""
        if name == "s3":
            return  # it was waited for; the health check is that of the image it stands in for
        spec, running = self.specs[name], self._running[name]
        if not spec.healthcheck:
            assert running.process.wait(PATIENCE_SECONDS) == 0, self.log(name)
            return
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self.check(name).returncode:
            assert running.process.poll() is None, f"{name} ended:\n{self.log(name)}"
            assert time.monotonic() < give_up, f"{name} is not well:\n{self.log(name)}"
            time.sleep(0.5)

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of a service once."""
        return self._execute(name, self.specs[name].healthcheck)

    def stop(self, name: str, *, seconds: float = STOP_SECONDS) -> int:
        """Ask a service to end, as Docker does, and return its exit code."""
        self.signal(name)
        running = self._running.pop(name)
        code = running.process.wait(seconds)
        self._kill_rest(name, running)
        return code

    def signal(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the first process of a service; it may have ended already."""
        self._running[name].process.send_signal(number)

    def kill(self, name: str) -> None:
        """Kill everything on a machine at once, as if it had lost power."""
        running = self._running.pop(name)
        self._kill_rest(name, running)
        running.process.wait(STOP_SECONDS)

    def is_running(self, name: str) -> bool:
        """Whether the process of a service has not ended."""
        return name in self._running and self._running[name].process.poll() is None

    def processes(self, name: str) -> list[psutil.Process]:
        """All processes of a service, the first one first."""
        first = psutil.Process(self._running[name].process.pid)
        return [first, *first.children(recursive=True)]

    def log(self, name: str, characters: int = 4_000) -> str:
        """The end of what a service has said."""
        file = self.folder / "logs" / f"{name}.log"
        return file.read_text(errors="replace")[-characters:] if file.exists() else ""

    def execute(self, name: str, *command: str) -> str:
        """Run a command in a service of ours, as `docker compose exec`, and return what it says."""
        done = self._execute(name, command)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    # What tests ask from outside

    def address(self, name: str) -> str:
        """By which a service is reached from the test."""
        return self.machines[name].address

    def url(self, name: str, port: int) -> str:
        """The page of a service."""
        return f"http://{self.address(name)}:{port}"

    @property
    def database_url(self) -> str:
        """The database, for the test."""
        password = self.variables["POSTGRES_PASSWORD"]
        return f"postgresql://imgflow:{password}@{self.address('postgres')}:5432/imgflow"

    @contextmanager
    def environment(self, name: str) -> Iterator[None]:
        """Let this process have the variables of a service, by addresses that it can reach.

        For what imgflow and Dagster do in the test's own process.
        """
        before = dict(os.environ)
        values = self._environment(replace(self.specs[name], name=name))
        for variable, value in values.items():
            if variable.startswith(("IMGFLOW_", "DAGSTER_", "AWS_")):
                os.environ[variable] = self._by_address(value)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def engine(self) -> sa.Engine:
        """The database, for the test; the caller disposes of it."""
        return make_engine(self.database_url)

    def s3(self) -> Any:
        """A client of the store, for the test."""
        return boto3.client(
            "s3",
            endpoint_url=self.url("s3", S3_PORT),
            aws_access_key_id=self.variables["S3_ACCESS_KEY"],
            aws_secret_access_key=self.variables["S3_SECRET_KEY"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    # How services are run here

    def _prepared(self, spec: ServiceSpec) -> Prepared:
        if spec.name == "postgres":
            return self._postgres.prepare(spec, self.machines[spec.name])
        if spec.name == "redis":
            return prepare_redis(spec, self.machines[spec.name], self.folder)
        return self._local([*self.image.entrypoint, *spec.command]), self._environment(spec)

    def _environment(self, spec: ServiceSpec) -> dict[str, str]:
        home = str(self.folder / spec.name / "home")
        image = {
            name: value.replace(IMAGE_HOME, home)
            for name, value in self.image.environment.items()
            if name != "PATH"
        }
        listens = self.machines[spec.name].listens
        file = {
            name: self._localised(value).replace("0.0.0.0", listens)  # noqa: S104
            for name, value in spec.environment.items()
        }
        return {**image, **file, **of_this_installation()}

    def _local(self, command: list[str] | tuple[str, ...]) -> list[str]:
        return [self._localised(part) for part in command]

    def _localised(self, text: str) -> str:
        """On loopback addresses, names and the addresses that stand for all are not to be had."""
        return text if self.network.has_namespaces else self._by_address(text)

    def _by_address(self, text: str) -> str:
        """A text with addresses in the place of names."""
        for name in self.machines:
            for before in ("@", "//"):
                text = text.replace(f"{before}{name}:", f"{before}{self.address(name)}:")
        return text

    def _on(self, name: str, command: list[str]) -> list[str]:
        machine = self.machines[name]
        if self.network.has_namespaces:
            # Each container has a host name of its own, which workers bear.
            script = f'hostname {name}; exec "$@"'
            return on(machine, ["unshare", "--uts", "sh", "-c", script, "sh", *command])
        replaced = {"0.0.0.0": machine.listens, "127.0.0.1": machine.address}  # noqa: S104
        for found, instead in (*replaced.items(), ("%h", name), ("$(hostname)", name)):
            command = [part.replace(found, instead) for part in command]
        return command

    def _execute(self, name: str, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        spec = replace(self.specs[name], name=name)
        environment = (
            self._environment(spec)
            if spec.is_ours
            else {**spec.environment, **of_this_installation()}
        )
        return subprocess.run(
            self._on(name, self._local(command)),
            env=environment,
            cwd=self.folder / "app",
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def _kill_rest(self, name: str, running: Running) -> None:
        if self.network.has_namespaces:
            (*_, space) = self.machines[name].prefix
            listed = subprocess.run(
                ["ip", "netns", "pids", space], capture_output=True, text=True, check=True
            )
            pids = [int(pid) for pid in listed.stdout.split()]
        else:
            pids = [process.pid for process in self._family(running.process.pid)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    @staticmethod
    def _family(pid: int) -> Iterator[psutil.Process]:
        try:
            first = psutil.Process(pid)
            yield from (first, *first.children(recursive=True))
        except psutil.NoSuchProcess:
            return


def until(condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Wait for what other processes bring about, and return it."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.05)
    return found
