"""A project over local folders, and one over a bucket with a queue."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.images.formats.decoding import Limits
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.work.photographs import WorkerConfig
from imgflow_tests.orchestration.processes import Gate
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.queues import Inbox, QueueProject, Uploads

# What the model's assertions compared is told as that of a test's own.
pytest.register_assert_rewrite("imgflow_tests.orchestration.model")


@pytest.fixture
def project(settings: Settings, instance: dg.DagsterInstance) -> Project:
    return Project(settings, instance)


@pytest.fixture
def make_project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    return lambda **values: Project(make_settings(**values), instance)


@pytest.fixture
def worker_config(tmp_path: Path) -> WorkerConfig:
    """Of workers over folders of the test: `in`, which is there and empty, and `out`."""
    source, outputs = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    return WorkerConfig(
        stores=StoreConfig(source.as_uri(), outputs.as_uri()),
        database_url="",
        source=f"{source.as_uri()}/",
        photo_recipe=PhotoRecipe(),
        photo_limits=Limits(),
        depth_recipe=DepthRecipe(),
        decode_seconds=60,
        depth_seconds=60,
    )


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where processes wait for the test."""
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture(scope="session")
def moto() -> Iterator[dict[str, str]]:
    """Arguments of a client of moto."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint_url": f"http://{host}:{port}",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "region_name": "us-east-1",
    }
    server.stop()


@pytest.fixture
def inbox(moto: dict[str, str]) -> Inbox:
    client = boto3.client("sqs", **moto)
    return Inbox(client, client.create_queue(QueueName=f"q-{uuid.uuid4().hex}")["QueueUrl"])


@pytest.fixture
def make_queue_project(
    bucket: str,
    inbox: Inbox,
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
) -> Callable[..., QueueProject]:
    def make(**values: Any) -> QueueProject:
        settings = make_settings(
            source_url=f"s3://{bucket}/in",
            output_url=f"s3://{bucket}/in/made",
            sqs_queue_url=inbox.url,
            **values,
        )
        return QueueProject(settings, instance)

    return make


@pytest.fixture
def queue_project(make_queue_project: Callable[..., QueueProject]) -> QueueProject:
    return make_queue_project()


@pytest.fixture
def uploads(s3: Any, bucket: str) -> Uploads:
    return Uploads(s3, bucket)
