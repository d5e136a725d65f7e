"""What the image starts: its entry point, its health check, and the migration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.database.schema import current_version, known_versions
from imgflow.errors import SettingsError
from imgflow.service import probe
from imgflow.service.migrate import migrate
from imgflow.settings.variables import Settings
from imgflow.store.s3.admin import make_bucket
from imgflow.store.s3.clients import s3_client
from imgflow_tests.conftest import S3Server
from imgflow_tests.patience import PATIENCE_SECONDS


def entered(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-m", "imgflow.service.container", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def test_the_entry_point_writes_dagsters_home_and_becomes_the_command(settings: Settings) -> None:
    read = "open(os.environ['DAGSTER_HOME'] + '/dagster.yaml').read()"
    code = f"import os; print(os.getppid(), {read})"
    done = entered(sys.executable, "-c", code)
    assert done.stdout.startswith(f"{os.getpid()} "), "no process stands between"
    assert "BulkPostgresEventLogStorage" in done.stdout
    assert settings.database_url not in done.stdout


def test_the_entry_point_wants_a_database_that_containers_can_share(
    make_settings: Callable[..., Settings],
) -> None:
    make_settings(database_url="")
    done = entered("true")
    assert done.returncode == 1
    assert "IMGFLOW_DATABASE_URL" in done.stderr


@pytest.mark.parametrize(("given", "expected"), [({}, "2"), ({"MALLOC_ARENA_MAX": "7"}, "7")])
@pytest.mark.usefixtures("settings")
def test_a_container_has_few_heaps_unless_its_operator_wants_more(
    given: dict[str, str], expected: str
) -> None:
    assert entered("printenv", "MALLOC_ARENA_MAX", **given).stdout.strip() == expected


def test_migrating_makes_tables_and_bucket_once(
    make_settings: Callable[..., Settings],
    database_url: str,
    s3: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back afterwards
    name = f"{bucket}-m"
    settings = make_settings(source_url=f"s3://{name}/in", output_url=f"s3://{name}/out")
    said: list[str] = []
    for _ in range(2):
        migrate(settings, said.append, make_buckets=True)
    assert [line.split(maxsplit=2)[2] for line in said if line.startswith("Bucket")] == [
        "made",
        "is there",
    ]
    engine = make_engine(database_url)
    assert current_version(engine) == known_versions()[0]
    engine.dispose()
    s3.delete_bucket(Bucket=name)


def test_a_bucket_that_is_there_is_left_alone(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    assert make_bucket(bucket) is False
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"


def test_a_service_that_has_a_name_is_asked_for_a_bucket_by_its_path(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in s3_server.variables().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3:7070")
    ask = {"ClientMethod": "get_object", "Params": {"Bucket": "imgflow", "Key": "a"}}
    assert s3_client().generate_presigned_url(**ask).startswith("http://s3:7070/imgflow/a?")


def test_the_health_check_tells_a_page_that_is_well(s3_server: S3Server) -> None:
    assert probe.main(s3_server.endpoint) is None
    assert "127.0.0.1:1" in str(probe.main("http://127.0.0.1:1/health"))


def test_a_worker_without_a_broker_says_what_is_missing(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import imgflow.service.celery_app"],
        env={**os.environ, "IMGFLOW_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 1
    assert SettingsError.__name__ in done.stderr
    assert "IMGFLOW_BROKER_URL" in done.stderr
