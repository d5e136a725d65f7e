"""A process killed anywhere: a restart ends where an undisturbed run does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import make_engine
from imgflow.store.location import parse_location
from imgflow.store.naming import MARKER
from imgflow.store.output_store import OutputStore
from imgflow_tests.orchestration.crash_points import CRASH_AT, CRASH_TRACE
from imgflow_tests.orchestration.crash_states import half_visible
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import depth_csv, jpeg, png

# The sweep belongs to the first test that asks for it.
pytestmark = pytest.mark.timeout(2_700)

# Processes wait more than they compute.
LANES = 4

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
    "twin.jpg": BEFORE["same.jpg"],
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
                "seconds": PATIENCE_SECONDS,
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

    def run(self, crash_at: str | None, look: Callable[[Any], None] | None = None) -> Run:
        """Begin anew, be killed at a point, and start again; `look` is called all the time."""
        name = f"run{uuid.uuid4().hex[:12]}"
        home = self.folder / name
        # Links keep what a listing shows of a file, so what was processed counts as unchanged.
        shutil.copytree(
            self.folder / "begin", home, copy_function=os.link, ignore=shutil.ignore_patterns("log")
        )
        (home / "outputs" / MARKER).unlink()  # as who takes the outputs over with a copied database
        with self.creating:
            self.sql(f"CREATE DATABASE {name} TEMPLATE begin")
        source = (home / "source").as_uri()
        self.sql(f"UPDATE images SET source = '{source}/'", name)  # noqa: S608 - our own folder
        trace = home / "trace"
        trace.touch()
        points = {CRASH_TRACE: str(trace)} | ({CRASH_AT: crash_at} if crash_at else {})
        with looking(look, self.url(name), home / "outputs"):
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
            with suppress(ProcessLookupError):
                os.killpg(killed["group"], signal.SIGKILL)  # workers that were left behind
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


@contextmanager
def looking(look: Callable[[Any], None] | None, url: str, outputs: Path) -> Iterator[None]:
    """Call `look` again and again with the catalogue and the outputs that a reader has."""
    if look is None:
        yield
        return
    engine = make_engine(url)
    location = parse_location(outputs.as_uri(), setting="")
    reader = SimpleNamespace(catalog=SimpleNamespace(engine=engine), outputs=OutputStore(location))
    is_over = threading.Event()

    def poll() -> None:
        while not is_over.is_set():
            look(reader)

    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(poll)
        try:
            yield
        finally:
            is_over.set()
    polling.result()
    engine.dispose()


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
    # Only processes die here, never the server, and each database that is dropped is a checkpoint.
    machine.sql("ALTER SYSTEM SET fsync = off")
    machine.sql("SELECT pg_reload_conf()")
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
        server.communicate(timeout=PATIENCE_SECONDS)
    machine.sql("DROP DATABASE begin WITH (FORCE)")
    machine.sql("ALTER SYSTEM RESET fsync")
    machine.sql("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def undisturbed(machine: Machine) -> Run:
    """All points are passed, and none of them is deadly."""
    return machine.run(None)


@pytest.fixture(scope="module")
def sweep(machine: Machine, undisturbed: Run) -> list[Run]:
    """One run for each point, killed there and started again."""
    which = os.environ.get("IMGFLOW_TEST_CRASH_POINTS", "some")
    points = undisturbed.passed if which == "every" else distinct(undisturbed.passed)
    if which == "some":  # CI kills at all of them, which takes more than ten minutes
        points = points[::5]
    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(machine.run, points))


def differences(sweep: list[Run], undisturbed: Run, part: str) -> dict[str, Any]:
    """By point: what a restart left otherwise than the undisturbed run."""
    expected = undisturbed.answer["state"][part]
    return {
        str(run.crash_at): _differences(run.answer["state"][part], expected)
        for run in sweep
        if run.answer["state"][part] != expected
    }


def _differences(found: Any, expected: Any) -> Any:
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return {"found": found, "expected": expected}
    return {
        key: _differences(found.get(key), expected.get(key))
        for key in found.keys() | expected.keys()
        if found.get(key) != expected.get(key)
    }


def test_the_undisturbed_run_does_everything(undisturbed: Run) -> None:
    state = undisturbed.answer["state"]
    assert {key: row["state"] for key, row in state["rows"].items()} == {
        **dict.fromkeys(BEFORE | AFTER, "ready"),
        "broken.jpg": "rejected",
    }
    assert state["rows"]["racing.jpg"]["width"] == 90, "it is processed as it was overwritten"
    assert state["partitions"] == {
        "photos": ["a.jpg", "b.png", "broken.jpg", "old.jpg", "racing.jpg", "same.jpg", "twin.jpg"],
        "depth_images": ["new.csv", "old.csv"],
    }
    assert [(key, rows) for key, _, rows, _ in state["arrays"]] == [
        ("new.csv", "20"),
        ("old.csv", "30"),
    ]
    greens = {key for key in BEFORE | AFTER if key.endswith(("g", "s")) and key != "broken.jpg"}
    assert {
        key for key, colour in state["colours"]["photo/thumbnail"].items() if colour == "green"
    } == greens
    assert state["colours"]["photo/thumbnail"]["broken.jpg"] == "red"
    assert len(undisturbed.passed) > 200


@pytest.mark.slow
def test_the_process_died_at_every_point(sweep: list[Run]) -> None:
    assert {run.crash_at: run.code for run in sweep if run.code != -signal.SIGKILL} == {}


@pytest.mark.slow
def test_nothing_is_half_visible_after_a_crash_or_a_restart(sweep: list[Run]) -> None:
    assert {run.crash_at: found for run in sweep if (found := run.answer["after_crash"])} == {}
    assert {run.crash_at: found for run in sweep if (found := run.answer["half_visible"])} == {}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["rows", "arrays", "stored", "partitions", "colours", "versions"])
def test_a_restart_ends_where_an_undisturbed_run_does(
    sweep: list[Run], undisturbed: Run, part: str
) -> None:
    assert differences(sweep, undisturbed, part) == {}


@pytest.mark.slow
def test_outputs_that_no_row_names_are_those_of_older_uploads_only(
    sweep: list[Run], undisturbed: Run
) -> None:
    state = undisturbed.answer["state"]
    known = state["stored"] + state["orphans"]
    assert {
        run.crash_at: odd
        for run in sweep
        if (odd := [one for one in run.answer["state"]["orphans"] if one not in known])
    } == {}


@pytest.mark.slow
def test_a_run_that_died_does_not_look_as_if_it_went_on(sweep: list[Run]) -> None:
    assert any(run.answer["left_over"] for run in sweep)
    assert {run.crash_at: n for run in sweep if (n := run.answer["unfinished"])} == {}


@pytest.mark.slow
def test_after_the_restart_there_is_nothing_left_to_do(sweep: list[Run]) -> None:
    nothing = {"listed": 9, "processed": 0, "unchanged": 9, "rejected": 0, "failed": 0, "runs": 0}
    again = {run.crash_at: {**run.answer["again"]} for run in sweep}
    for found in again.values():
        del found["seconds"]
    assert {point: found for point, found in again.items() if found != nothing} == {}


def test_who_looks_while_a_run_goes_on_never_sees_half_of_an_image(machine: Machine) -> None:
    seen: list[list[str]] = []

    def look(project: Any) -> None:
        seen.append(half_visible(project))

    run = machine.run(None, look=look)
    assert run.answer["half_visible"] == []
    assert len(seen) > 20
    assert [wrong for wrong in seen if wrong] == []
