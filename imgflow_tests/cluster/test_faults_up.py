"""Each process of `imgflow up` is killed, and stopped, while images arrive; what was done goes on.

The processes are found in its tree, not listed here: one that is new is covered by itself.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3_000)]

HEALED_SECONDS = 20

# What of a command line is another one at each start: numbers, and where programs lie.
NUMBERS = re.compile(r"[0-9a-f-]*\d[0-9a-f-]*|/\S+/")

PARTITIONS = """
{ assetNodes(group: {groupName: "photo", repositoryName: "__repository__",
                     repositoryLocationName: "imgflow"}) {
  assetKey { path }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions materializingPartitions
  } }
} }
"""


class Arrivals:
    """Photographs that land in the source."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.keys: list[str] = []

    def put(self, count: int) -> list[str]:
        new = [f"{number:04}.jpg" for number in range(len(self.keys), len(self.keys) + count)]
        for key in new:
            body = jpeg(600, 400, seed=int(key[:4]))
            (self.running.home / "source" / key).write_bytes(body)
        self.keys += new
        return new

    def are_ready(self, keys: list[str]) -> bool:
        """Whether all works again: these images, everything that answers, both pages."""
        try:
            states = [self.running.read(f"/images/key:{key}").json().get("state") for key in keys]
            pages = (f"{self.running.api}/health/ready", f"{self.running.dagster}/server_info")
            answers = [httpx.get(page, timeout=5).status_code for page in pages]
        except (httpx.HTTPError, ValueError):
            return False
        return {*states} == {"ready"} and {*answers} == {200}

    def seconds_until_ready(self, keys: list[str]) -> float:
        began = time.monotonic()
        while not self.are_ready(keys):
            taken = time.monotonic() - began
            assert taken < PATIENCE_SECONDS, self.running.output()
            time.sleep(0.1)
        return time.monotonic() - began


@pytest.fixture
def arrivals(tmp_path: Path) -> Iterator[Arrivals]:
    with ready(tmp_path, IMGFLOW_WORKERS="2") as started:
        found = Arrivals(started)
        found.seconds_until_ready(found.put(3))
        yield found


def kind_of(process: psutil.Process, home: Path) -> str:
    """Its command, without what differs from one such process to the next."""
    command = re.sub(rf"{home}\S*", "…", " ".join(process.cmdline()))
    if command.startswith("postgres: ") and "[local]" in command:
        return "postgres: a connection"
    return NUMBERS.sub("…", command.partition("{")[0])


def tree(running: Running) -> dict[str, psutil.Process]:
    """One process of each kind, by its command line: children of `imgflow up`, and its database."""
    database = running.home / "postgres"
    roots = [psutil.Process(running.process.pid)]
    for file in (database / "postmaster.pid", running.home / "postgres.guard"):
        try:
            roots.append(psutil.Process(int(file.read_text().split()[0])))
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            continue
    found = {}
    for root in roots:
        for process in (*roots[1:], *root.children(recursive=True)):
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[kind_of(process, running.home)] = process
            except psutil.NoSuchProcess:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_whatever_process_is_hit_all_goes_on_within_20_seconds(
    arrivals: Arrivals, number: signal.Signals
) -> None:
    hit: dict[str, float] = {}
    running = arrivals.running
    while True:
        # On a machine that is busy with other things everything takes its time.
        usual = arrivals.seconds_until_ready(arrivals.put(2))
        arrivals.put(8)
        target = None
        give_up = time.monotonic() + 2 * usual
        while target is None and time.monotonic() < give_up:
            # Runs and their workers are there for moments only.
            targets = sorted(tree(running).items(), key=lambda one: -one[1].create_time())
            target = next((one for one in targets if one[0] not in hit), None)
        if target is None:
            break
        kind, process = target
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        hit[kind] = arrivals.seconds_until_ready(arrivals.put(2)) - usual
    assert len(hit) >= 10, hit  # services, their forkserver and workers, the database's
    assert max(hit.values()) <= HEALED_SECONDS, hit
    arrivals.seconds_until_ready(arrivals.keys)
    assert running.process.poll() is None
    rows = {key: running.read(f"/images/key:{key}").json()["id"] for key in arrivals.keys}
    assert len({*rows.values()}) == len(arrivals.keys)

    def agrees() -> bool:
        nodes = running.graphql(PARTITIONS)["assetNodes"]
        return all(
            sorted(node["assetPartitionStatuses"]["materializedPartitions"]) == arrivals.keys
            and not node["assetPartitionStatuses"]["failedPartitions"]
            for node in nodes
        )

    give_up = time.monotonic() + PATIENCE_SECONDS
    while not agrees():
        assert time.monotonic() < give_up, running.graphql(PARTITIONS)
        time.sleep(1)
