"""Real parts for tests: one PostgreSQL and S3 server, a fresh database and bucket a test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psycopg2
import pytest
from botocore.config import Config

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.dagster_storage.instance import environment, open_instance
from imgflow.settings.variables import Settings, load_settings
from imgflow.store.config import StoreConfig
from imgflow.store.folder import writers
from imgflow.work.pool import PRELOADED_FOR, prepare_workers
from imgflow_tests import ceph
from imgflow_tests.policies import User, make_user


def pytest_configure() -> None:
    """Take back what a shell in the background and `nohup` ignore: tests send these signals."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def has_leases(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether the kernel tells here who is writing a file."""
    file = tmp_path_factory.mktemp("lease") / "file"
    file.touch()
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return writers.Writers().is_written(descriptor, file.stat()) is False
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def _no_waiting_for_quiet(has_leases: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only time tells that a file is whole, tests would wait for every file they make."""
    if not has_leases:
        if os.environ.get("CI"):
            pytest.fail("CI must test on a local file system that has leases")
        monkeypatch.setattr(writers, "QUIET_SECONDS", 0.0)


@pytest.fixture(scope="session", autouse=True)
def _workers_of_all_tests() -> None:
    """Import once what workers of depth images need, where each would import it for itself."""
    prepare_workers(StoreConfig("file:///in", "file:///out"), PRELOADED_FOR)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg"))
    yield server
    server.close()


@pytest.fixture
def make_database(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Make empty databases, which are dropped when the test is over."""
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    names: list[str] = []

    def make() -> str:
        names.append(f"t{uuid.uuid4().hex}")
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {names[-1]}")
        return postgres.url.replace("/imgflow?", f"/{names[-1]}?")

    yield make
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


@pytest.fixture
def database_url(make_database: Callable[[], str]) -> str:
    """A database of this test's own."""
    return make_database()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def make_settings(
    home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Settings of a fresh home and database; arguments become environment variables."""
    for name in list(os.environ):
        if name.startswith("IMGFLOW_") and not name.startswith("IMGFLOW_TEST_"):
            monkeypatch.delenv(name)

    def make(**values: Any) -> Settings:
        values = {
            **{"home": home, "database_url": database_url, "workers": 2},
            "sensor_seconds": 5,  # so that a tick looks once
            **values,
        }
        for name, value in values.items():
            monkeypatch.setenv(f"IMGFLOW_{name.upper()}", str(value))
        return load_settings(_env_file=None)

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def instance(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance as `imgflow up` makes it."""
    for name, value in environment(settings, database_url).items():
        monkeypatch.setenv(name, value)  # `open_instance` sets them too; this puts them back
    with open_instance(settings, database_url) as opened:
        yield opened


@pytest.fixture
def catalog(database_url: str) -> Iterator[PostgresCatalog]:
    """A catalogue of a source that only exists in name."""
    engine = make_engine(database_url)
    catalog = PostgresCatalog(engine, "file:///source/")
    catalog.migrate()
    yield catalog
    engine.dispose()


@dataclass(frozen=True)
class S3Server:
    """A running S3 server."""

    endpoint: str
    access_key: str
    secret_key: str
    ceph: ceph.Ceph | None = None

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's gateway where its packages are installed, as in CI; else moto."""
    if ceph.is_installed():
        server = ceph.Ceph(tmp_path_factory.mktemp("ceph"))
        try:
            server.start()
            yield S3Server(server.endpoint, ceph.ACCESS_KEY, ceph.SECRET_KEY, server)
        finally:
            server.stop()
        return
    if os.environ.get("CI"):
        pytest.fail("CI must test against Ceph: install ceph-mon, ceph-osd and radosgw")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield S3Server(f"http://{host}:{port}", "test", "test")
    moto.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client; the environment points to the same server."""
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)
    return s3_server.client()


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A fresh bucket, emptied and removed afterwards."""
    name = f"t-{uuid.uuid4().hex[:20]}"
    s3.create_bucket(Bucket=name)
    yield name
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=name, Key=entry["Key"])
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def user(s3_server: S3Server) -> User:
    """Someone of the S3 server who may do nothing yet."""
    if s3_server.ceph is None:
        pytest.skip("moto lets everyone do everything: install ceph-mon, ceph-osd and radosgw")
    return make_user(s3_server.ceph, s3_server.access_key, s3_server.secret_key)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of other people's pictures."""
    default = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    folder = Path(os.environ.get("IMGFLOW_TEST_CORPUS", default))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the test corpus, and there is none in {folder}")
        pytest.skip(f"no test corpus in {folder}; set IMGFLOW_TEST_CORPUS")
    return folder
