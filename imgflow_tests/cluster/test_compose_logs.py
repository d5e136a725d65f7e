"""`LOG_FORMAT=json` in the `.env`: every service writes objects, and one id leads through them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from imgflow_tests.cluster.cluster import Cluster, until
from imgflow_tests.cluster.compose import read_compose
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.pictures import jpeg

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

WRITING = {
    "code-server": "code-server",
    "daemon": "daemon",
    "webserver": "webserver",
    "api": "api",
    "worker": "worker",
    "worker-2": "worker",
}

# What Celery says to whoever stands before it, its banner and that it ends.
TO_PEOPLE = {"worker": re.compile(r"celery@|photo@|-+ |\[|\s|worker: ")}


class Logs:
    """What services have written since."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._said = {name: len(cluster.log(name, 10**7)) for name in WRITING}

    def lines(self, name: str) -> list[str]:
        said = self._cluster.log(name, 10**7)[self._said[name] :].splitlines()
        to_people = TO_PEOPLE.get(WRITING[name])
        return [line for line in said if line and not (to_people and to_people.match(line))]

    def of(self, name: str, trace_id: str) -> list[dict[str, Any]]:
        """The lines of one upload."""
        objects = [json.loads(line) for line in self.lines(name)]
        return [line for line in objects if line.get("trace_id") == trace_id]


@pytest.fixture
def logs(cluster: Cluster) -> Iterator[Logs]:
    before = {name: cluster.specs[name] for name in WRITING}
    written = read_compose({**cluster.variables, "LOG_FORMAT": "json"})
    for name, spec in WRITING.items():
        cluster.stop(name)
        cluster.specs[name] = written[spec]
    logs = Logs(cluster)
    for name in WRITING:
        cluster.start(name, wait=name == "code-server")
    for name in WRITING:
        cluster.wait(name)
    yield logs
    for name, spec in before.items():
        cluster.stop(name)
        cluster.specs[name] = spec
        cluster.start(name, wait=name == "code-server")
    for name in WRITING:
        cluster.wait(name)


def test_one_id_leads_from_the_sensor_over_a_worker_to_the_answer(
    observer: Observer, logs: Logs, name: str
) -> None:
    key = f"{name}/a.jpg"
    observer.upload({key: jpeg(seed=70)})
    (image,) = observer.ready(key)
    token = observer.cluster.variables["API_TOKEN"]
    answer = httpx.get(
        f"{observer.cluster.url('api', 8000)}/images/{image.id}",
        headers={"Authorization": f"Bearer {token}"},
    )
    trace_id = answer.headers["X-Imgflow-Trace"]
    assert answer.json()["trace_id"] == trace_id
    (seen,) = logs.of("code-server", trace_id)
    assert (seen["event"], seen["key"]) == ("upload seen", key)
    worker = until(lambda: observer.worker_of(str(image.run_id)), "a worker has the run in its log")
    (done,) = logs.of(worker, trace_id)
    assert (done["event"], done["outcome"]) == ("upload processed", "ready")
    assert done["run_id"] == image.run_id
    (asked,) = logs.of("api", trace_id)
    assert (asked["event"], asked["status"]) == ("request", 200)
    for service in WRITING:
        for line in logs.lines(service):
            assert {"event", "level", "logger", "timestamp"} <= json.loads(line).keys(), line
