"""The pods' own commands on a read-only root, with nothing to write to but their two folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.service.supervision.processes import Service, end_all
from imgflow_tests.ceph import free_port
from imgflow_tests.deploy import chart
from imgflow_tests.deploy.manifests import ROOT, Pod, literals, pods, settings
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

HOME = "/var/lib/imgflow"
# `container` is in a mount namespace of its own, as a pod is; /tmp is by TMPDIR elsewhere, since
# the tests' own database lies there.
CONTAINER = """
mount --make-rprivate /
mount -o remount,bind,ro /
mount -t tmpfs tmpfs "$IMGFLOW_HOME"
mount -t tmpfs tmpfs "$TMPDIR"
if touch "$PWD/written" 2>/dev/null; then echo "the root can be written to"; exit 99; fi
"""
ENTRY_POINT = [sys.executable, "-m", "imgflow.service.container"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have redis-server")
        pytest.skip("needs redis-server")
    port = free_port()
    listens = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    service = Service("redis", [program, *listens], os.environ, tmp_path / "redis.log")
    service.start()
    yield f"redis://127.0.0.1:{port}/0"
    end_all([service])


class Namespace:
    """Pods of the manifests as processes of this machine."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.variables = variables
        self.ports = {name: str(free_port()) for name in ("3000", "4000", "8000")}
        self.pods = {pod.name: pod for pod in pods()}
        self.services: list[Service] = []
        (folder / "app").mkdir()
        server = {"host": "127.0.0.1", "port": int(self.ports["4000"]), "location_name": "imgflow"}
        self.workspace = folder / "workspace.yaml"
        self.workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def start(self, name: str) -> Service:
        """Start a pod, the init containers of the chart's first."""
        pod = self.pods[name]
        home, tmp = (self.folder / name / part for part in ("home", "tmp"))
        for folder in (home, tmp):
            folder.mkdir(parents=True)
        script = CONTAINER
        for first in pod.spec.get("initContainers", []):
            script += " ".join([*ENTRY_POINT, *first["args"]]) + "\n"
        service = Service(
            name,
            [
                *("unshare", "--mount", "sh", "-ec", f'cd "$0"\n{script}exec "$@"'),
                *(str(self.folder / "app"), *self._command(pod)),
            ],
            self._environment(pod, home, tmp),
            self.folder / f"{name}.log",
        )
        service.start()
        self.services.append(service)
        return service

    def log(self) -> str:
        return "\n".join(f"{one.name}: {one.log.read_text()[-1500:]}" for one in self.services)

    def _command(self, pod: Pod) -> list[str]:
        container = pod.container
        command = container.get("command") or [*ENTRY_POINT, *container["args"]]
        return [self._here(part).replace(chart.WORKSPACE, str(self.workspace)) for part in command]

    def _here(self, words: str) -> str:
        """Put free ports of this machine, reached from it alone, in place of the pods'."""
        for port, own in self.ports.items():
            words = f" {words} ".replace(f" {port} ", f" {own} ")[1:-1]
        return words.replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    def _environment(self, pod: Pod, home: Path, tmp: Path) -> dict[str, str]:
        own = {name: self._here(value) for name, value in literals(pod.container)}
        variables = {
            "PATH": f"{ROOT}/deploy/bin:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "IMGFLOW_HOME": HOME,
            "DAGSTER_HOME": f"{HOME}/dagster",
            **settings(),
            **own,
            **self.variables,
            "TMPDIR": str(tmp),
        }
        if "IMGFLOW_API_HOST" in own:
            variables |= {"IMGFLOW_API_TOKEN": "secret", "IMGFLOW_LINK_KEY": "k" * 32}
        return {name: value.replace(HOME, str(home)) for name, value in variables.items()}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """With a name so short that sockets in the pods' folders have addresses, as on a real pod."""
    with tempfile.TemporaryDirectory(prefix="pods-") as folder:
        yield Path(folder)


@pytest.fixture
def namespace(
    short_folder: Path,
    s3: Any,
    bucket: str,
    broker: str,
    database_url: str,
) -> Iterator[Namespace]:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to make mount namespaces: as root, with CAP_SYS_ADMIN")
        pytest.skip("may not make mount namespaces here")
    del s3  # its variables are in the environment
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    made = Namespace(
        short_folder,
        {
            **aws,
            "IMGFLOW_SOURCE_URL": f"s3://{bucket}/in",
            "IMGFLOW_OUTPUT_URL": f"s3://{bucket}/made",
            "IMGFLOW_SQS_QUEUE_URL": "",
            "IMGFLOW_SENSOR_SECONDS": "1",
            "IMGFLOW_DATABASE_URL": database_url,
            "IMGFLOW_BROKER_URL": broker,
        },
    )
    yield made
    end_all(made.services)


def until(namespace: Namespace, what: str, condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        ended = [one.name for one in namespace.services if one.has_ended()]
        assert not ended, f"{ended} ended\n{namespace.log()}"
        assert time.monotonic() < give_up, f"{what}\n{namespace.log()}"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own pages
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_an_upload_becomes_a_picture_through_pods_that_can_write_to_two_folders_only(
    namespace: Namespace, s3: Any, bucket: str, database_url: str
) -> None:
    migration = namespace.start("imgflow-migrate")
    until(namespace, "migrated", lambda: migration.has_ended() is not None)
    assert migration.has_ended() == 0, namespace.log()
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg())

    namespace.start("imgflow")  # the code server
    ask = [*namespace.pods["imgflow"].container["readinessProbe"]["exec"]["command"][:-1]]
    probe = [f"{sysconfig.get_path('scripts')}/{ask[0]}", *ask[1:], namespace.ports["4000"]]
    until(
        namespace,
        "the code server is ready",
        lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
    )
    for name in ("daemon", "imgflow-worker-photo", "imgflow-api", "webserver"):
        namespace.start(name)

    engine = make_engine(database_url)
    catalog = PostgresCatalog(engine, f"s3://{bucket}/in/")
    until(
        namespace,
        "the upload is ready",
        lambda: [image.state for image in catalog.page(limit=9)] == ["ready"],
    )
    engine.dispose()
    for name, port in (("imgflow-api", "8000"), ("webserver", "3000")):
        found = namespace.pods[name].container["readinessProbe"]["httpGet"]
        page = f"http://127.0.0.1:{namespace.ports[port]}{found['path']}"
        until(namespace, f"{name} is ready", lambda page=page: answers(page))  # type: ignore[misc]
