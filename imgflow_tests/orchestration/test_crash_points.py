"""A process killed anywhere: whatever it was doing, a restart ends where an undisturbed run does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psycopg2
import pytest

from imgflow.catalog.embedded import EmbeddedPostgres
from imgflow_tests.orchestration.crash_points import CRASH_AT, CRASH_TRACE
from imgflow_tests.pictures import depth_csv, jpeg, png

LANES = 2
SECONDS = 60  # for one process

BEFORE = {
    "old.jpg": jpeg(seed=1),
    "same.jpg": jpeg(seed=2),
    "old.csv": depth_csv(40, seed=3),
}
"""What an earlier, undisturbed run has processed."""
AFTER = {
    "a.jpg": jpeg(seed=4),
    "b.png": png(seed=5),
    "broken.jpg": b"no picture",
    "new.csv": depth_csv(20, seed=6),
    "old.csv": depth_csv(30, seed=7),
    "old.jpg": jpeg(80, 60, seed=8),
    "racing.jpg": jpeg(seed=9),
}
"""What is uploaded since, and processed by the run that is killed; two objects are overwritten."""
RACING = jpeg(90, 30, seed=10)
"""Replaces `racing.jpg` between its listing and its reading."""


@dataclass
class Machine:
    """The homes, databases and processes of many runs that begin at the same state."""

    postgres: EmbeddedPostgres
    folder: Path
    servers: SimpleQueue[subprocess.Popen[str]] = field(default_factory=SimpleQueue)
    creating: threading.Lock = field(default_factory=threading.Lock)

    def sql(self, statement: str, database: str = "imgflow") -> None:
        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def url(self, database: str) -> str:
        return self.postgres.url.replace("/imgflow?", f"/{database}?")

    def order(self, what: str, home: Path, database: str, **variables: str) -> dict[str, Any]:
        """Have a forked process do something; returns how it ended."""
        server = self.servers.get()
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            environment = {
                "IMGFLOW_HOME": str(home),
                "IMGFLOW_DATABASE_URL": self.url(database),
                "IMGFLOW_WORKERS": "2",
                **variables,
            }
            log = home / "log"
            order = {
                "what": what,
                "environment": environment,
                "log": str(log),
                "seconds": SECONDS,
            }
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            answer: dict[str, Any] = json.loads(server.stdout.readline())
            answer["log"] = log.read_text()
            return answer
        finally:
            self.servers.put(server)

    def prepare(self) -> None:
        """Make the state at which every run begins."""
        home = self.folder / "begin"
        write(home / "source", BEFORE)
        self.sql("CREATE DATABASE begin")
        ended = self.order("ingest", home, "begin")
        assert ended["code"] == 0, ended["log"]
        write(home / "source", AFTER)
        (home / "racing.jpg").write_bytes(RACING)

    def run(self, crash_at: str | None) -> Run:
        """Begin anew, be killed at a point, and start again."""
        name = f"run{uuid.uuid4().hex[:12]}"
        home = self.folder / name
        # Links keep what a listing shows of a file, so what was processed counts as unchanged.
        shutil.copytree(
            self.folder / "begin", home, copy_function=os.link, ignore=shutil.ignore_patterns("log")
        )
        with self.creating:
            self.sql(f"CREATE DATABASE {name} TEMPLATE begin")
        source = (home / "source").as_uri()
        self.sql(f"UPDATE images SET source = '{source}/'", name)
        trace = home / "trace"
        trace.touch()
        points = {CRASH_TRACE: str(trace)} | ({CRASH_AT: crash_at} if crash_at else {})
        killed = self.order("crash", home, name, **points)
        answer = home / "answer"
        try:
            ended = self.order("recover", home, name, IMGFLOW_TEST_ANSWER=str(answer))
            assert ended["code"] == 0, f"{crash_at}: the restart failed\n{ended['log']}"
            passed = trace.read_text().splitlines()
            return Run(
                crash_at, killed["code"], killed["log"], passed, json.loads(answer.read_text())
            )
        finally:
            for group in (killed["group"],):
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self.sql(f"DROP DATABASE {name} WITH (FORCE)")
            shutil.rmtree(home)


@dataclass(frozen=True)
class Run:
    """One run that was killed, or not, and what the restart found and left."""

    crash_at: str | None
    code: int
    log: str
    passed: list[str]
    answer: dict[str, Any]


def distinct(points: list[str]) -> list[str]:
    """Leave out the points between which and the one before nothing happens.

    These are a point that follows one after a write of the same process, and statements within a
    transaction but for its first and its commit.
    """
    last: dict[str, str] = {}
    kept = []
    for point in points:
        process, what = point.split(" ", 1)
        if not (what.startswith("before ") and last.get(process, "").startswith("after ")):
            kept.append(point)
        if process == "main":  # several workers write at the same time
            last[process] = what
    return kept


def write(folder: Path, objects: dict[str, bytes]) -> None:
    """Put objects in place, each as a new file."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, body in objects.items():
        staged = folder.parent / "staged"
        staged.write_bytes(body)
        staged.replace(folder / key)


@pytest.fixture(scope="module")
def machine(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    machine = Machine(postgres, tmp_path_factory.mktemp("crash"))
    servers = []
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("IMGFLOW_", "DAGSTER_"))}
    for _ in range(LANES):
        server = subprocess.Popen(
            # Not a module: worker processes would import it, and Dagster with it.
            [
                sys.executable,
                "-c",
                "from imgflow_tests.orchestration import crash_points as c; c.serve()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
        )
        servers.append(server)
        machine.servers.put(server)
    machine.prepare()
    yield machine
    for server in servers:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(SECONDS)
    machine.sql("DROP DATABASE begin WITH (FORCE)")


@pytest.fixture(scope="module")
def undisturbed(machine: Machine) -> Run:
    """All points are passed, and none of them is deadly."""
    return machine.run(None)


@pytest.fixture(scope="module")
def sweep(machine: Machine, undisturbed: Run) -> list[Run]:
    """One run for each point, killed there and started again."""
    points = undisturbed.passed
    if not os.environ.get("IMGFLOW_TEST_EVERY_POINT"):
        points = distinct(points)
    began = time.monotonic()
    with ThreadPoolExecutor(LANES) as lanes:
        runs = list(lanes.map(machine.run, points))
    print(f"{len(runs)} of {len(undisturbed.passed)} points in {time.monotonic() - began:.0f} s")
    return runs


def test_probe(sweep, undisturbed):
    import pickle

    pickle.dump((undisturbed, sweep), open("/tmp/crash/sweep.pickle", "wb"))
