"""A project over local folders, and one over a bucket with a queue."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from imgflow.settings import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.queues import Inbox, QueueProject, Uploads


@pytest.fixture
def project(settings: Settings, instance: dg.DagsterInstance) -> Project:
    return Project(settings, instance)


@pytest.fixture
def make_project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    return lambda **values: Project(make_settings(**values), instance)


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
