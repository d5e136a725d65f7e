"""A worker decodes what strangers upload; whoever takes one over has the broker's password.

It opens the queues. It must not open the server: its files, modules, replication and settings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from imgflow_tests.ceph import free_port
from imgflow_tests.cluster.cluster import generated_variables
from imgflow_tests.cluster.compose import read_compose
from imgflow_tests.patience import PATIENCE_SECONDS


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """Redis with the configuration of compose; its address as workers have it."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have redis-server")
        pytest.skip("needs redis-server")
    services = read_compose(generated_variables())
    (config,) = services["redis"].configs.values()
    file, port = tmp_path / "redis.conf", free_port()
    config = config.replace("dir /data", f"dir {tmp_path}")
    file.write_text(f"{config}\nbind 127.0.0.1\nport {port}\n")
    process = subprocess.Popen(["redis-server", file], stdout=subprocess.DEVNULL)
    url = services["worker"].environment["IMGFLOW_BROKER_URL"]
    url = url.replace("@redis:6379/", f"@127.0.0.1:{port}/")
    try:
        # Tried again until it answers.
        patient = Retry(ConstantBackoff(0.1), retries=int(PATIENCE_SECONDS * 10))
        redis.Redis.from_url(url, retry=patient).ping()
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "command",
    ["CONFIG GET dir", "CONFIG SET dir /tmp", "MODULE LIST", "MODULE LOAD /tmp/x.so",
     "REPLICAOF 192.0.2.1 6379", "SLAVEOF NO ONE", "ACL LIST", "ACL SETUSER eve on nopass +@all",
     "SAVE", "BGSAVE", "SHUTDOWN NOSAVE", "FLUSHALL", "FLUSHDB", "MONITOR", "CLIENT LIST",
     "SYNC", "MIGRATE 192.0.2.1 6379 k 0 1", "RESTORE k 0 x", "DEBUG SLEEP 0"],
)  # fmt: skip
def test_the_password_of_a_worker_does_not_steer_the_server(broker: str, command: str) -> None:
    client = redis.Redis.from_url(broker)
    with pytest.raises(redis.ResponseError, match=r"(?i)no permission|not allowed"):
        client.execute_command(*command.split())
    assert client.ping()


def test_without_the_password_nothing_is_answered(broker: str) -> None:
    address = broker.partition("@")[2]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(f"redis://{address}").ping()


@pytest.fixture
def _logging_stays() -> Iterator[None]:
    """Keep Celery from setting this process's root logger up, for all tests that follow too."""

    def leave_it(**_: object) -> None: ...

    setup_logging.connect(leave_it)
    yield
    setup_logging.disconnect(leave_it)


@pytest.mark.usefixtures("_logging_stays")
def test_it_is_enough_for_celery(broker: str) -> None:
    """Sending, taking, answering, asking workers, and taking back what a dead worker had."""
    app = Celery("imgflow", broker=broker, backend=broker)

    @app.task
    def double(number: int) -> int:
        return 2 * number

    with start_worker(app, perform_ping_check=False, pool="solo"):
        assert double.delay(21).get(timeout=60) == 42
        assert app.control.inspect(timeout=10).ping()
    with kombu.Connection(broker, transport_options={"visibility_timeout": 0}) as connection:
        queue = connection.SimpleQueue("taken")
        queue.put({"run": 1})
        queue.get(timeout=10)  # and never acknowledged
        connection.default_channel.qos.restore_visible(num=10)
        assert connection.SimpleQueue("taken").get(timeout=10).payload == {"run": 1}
