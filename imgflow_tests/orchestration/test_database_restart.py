"""The database is restarted in the middle of a batch: nothing is lost, and no hand is needed."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow_tests.orchestration.crash_points import half_visible, state_of
from imgflow_tests.orchestration.processes import IMPATIENT, Ended, Gate, Server
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

PHOTOS = [f"photo-{number}.jpg" for number in range(6)]
DEPTH_IMAGES = ["hole-0.csv", "hole-1.csv"]
BROKEN = "broken.jpg"


class Database:
    """A server of this module's own, which may be stopped."""

    def __init__(self, home: Path) -> None:
        self.server = EmbeddedPostgres(home)

    def stop(self, mode: str) -> None:
        """Stop it: `fast` cuts connections, `immediate` is a crash."""
        server = self.server._server
        command = [str(server.bin_path / "pg_ctl"), "-w", "-D", str(server.pgdata), "-m", mode]
        subprocess.run(
            [*command, "stop"], user=server.system_user, cwd="/", check=True, capture_output=True
        )

    def start(self) -> None:
        self.server.ensure_running()


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("pg"))
    yield database
    database.server.close()


@pytest.fixture
def database_url(database: Database) -> str:
    """A database on the server that is restarted, in place of the one that all tests share."""
    name = f"t{uuid.uuid4().hex}"
    with closing(psycopg2.connect(database.server.url)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return database.server.url.replace("/imgflow?", f"/{name}?")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@dataclass(frozen=True)
class Machine:
    """Uploads, and the database and process that meet while these are processed."""

    project: Project
    database: Database
    server: Server
    gate: Gate
    folder: Path

    @contextmanager
    def held_in_batch(self, hold: str) -> Iterator[None]:
        """Start `imgflow ingest`, hold it somewhere in its batch, and let it go at the end."""
        self.server.start(self.gate, self.folder, "imgflow", "ingest", "--json", hold=hold)
        with self.gate.held("start"):
            pass
        with self.gate.held(hold):
            yield
        self.gate.close()


@pytest.fixture
def machine(
    project: Project, database: Database, server: Server, gate: Gate, tmp_path: Path
) -> Machine:
    for seed, key in enumerate(PHOTOS):
        put(project, key, jpeg(seed=seed))
    put(project, BROKEN, b"no picture")
    for seed, key in enumerate(DEPTH_IMAGES):
        put(project, key, depth_csv(30, seed=seed))
    return Machine(project, database, server, gate, tmp_path)


def assert_no_hand_is_needed(project: Project, ended: Ended) -> None:
    """The run is over or failed in words, and the next `imgflow ingest` leaves nothing to do."""
    assert ended.code in (0, 1), ended.log
    assert "Traceback" not in ended.log, ended.log

    project.end_pauses()
    report = project.ingest()
    assert (report.listed, report.failed) == (9, 0)
    state = state_of(project)
    assert {key: row["state"] for key, row in state["rows"].items()} == {
        **dict.fromkeys(PHOTOS + DEPTH_IMAGES, "ready"),
        BROKEN: "rejected",
    }
    assert [key for key, row in state["rows"].items() if not row["settled"]] == []
    assert half_visible(project) == []
    assert state["orphans"] == []
    assert [array[:3] for array in state["arrays"]] == [[k, "True", "30"] for k in DEPTH_IMAGES]
    assert project.tick().run_requests == []


def assert_dagster_agrees(project: Project) -> None:
    """Partitions have the colour of their rows, and newest events the rows' versions."""
    with project.catalog.engine.connect() as connection:
        twice = connection.exec_driver_sql(
            "SELECT run_id, asset_key, partition FROM event_logs "
            "WHERE dagster_event_type = 'ASSET_MATERIALIZATION' "
            "GROUP BY run_id, asset_key, partition HAVING count(*) > 1"
        ).all()
    assert twice == []
    state = state_of(project)
    for asset, colours in state["colours"].items():
        keys = DEPTH_IMAGES if asset.startswith("depth") else PHOTOS
        assert {key for key, colour in colours.items() if colour == "green"} == set(keys), asset
    assert {
        of: said
        for of, said in state["versions"].items()
        if ("instead" in said or said == "none") and BROKEN not in of
    } == {}


WORKER_PHASE = ["within planned events", "read photo-3.jpg", "read hole-1.csv"]
AFTER_ROWS = ["before events", "within events"]


@pytest.mark.parametrize(
    ("hold", "mode"),
    [
        *((hold, "fast") for hold in (*WORKER_PHASE, *AFTER_ROWS)),
        ("read photo-3.jpg", "immediate"),
        ("within events", "immediate"),
    ],
)
def test_a_restart_in_the_middle_of_a_batch(machine: Machine, hold: str, mode: str) -> None:
    with machine.held_in_batch(hold):
        machine.database.stop(mode)
        machine.database.start()
    ended = machine.server.ended()

    report = json.loads(ended.output.splitlines()[-1])
    assert report["processed"] >= len(PHOTOS), ended.log
    assert_no_hand_is_needed(machine.project, ended)
    assert_dagster_agrees(machine.project)


@pytest.mark.parametrize("hold", ["read photo-3.jpg", "before events"])
def test_a_run_rides_out_an_outage_of_seconds(machine: Machine, hold: str) -> None:
    with machine.held_in_batch(hold):
        machine.database.stop("fast")
    try:
        machine.server.said("tried again", "Retrying")
    finally:
        machine.database.start()
    ended = machine.server.ended()

    assert json.loads(ended.output.splitlines()[-1])["processed"] == 8, ended.log
    assert_no_hand_is_needed(machine.project, ended)
    assert_dagster_agrees(machine.project)


@pytest.mark.parametrize("hold", [*WORKER_PHASE, *AFTER_ROWS])
def test_an_outage_that_outlasts_the_run_is_one_sentence_and_the_next_run_does_it_all(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, hold: str
) -> None:
    monkeypatch.setenv(IMPATIENT, "true")
    with machine.held_in_batch(hold):
        machine.database.stop("fast")
    try:
        ended = machine.server.ended()
    finally:
        machine.database.start()

    assert ended.code == 1
    assert "does not answer" in ended.log.splitlines()[-1]
    assert_no_hand_is_needed(machine.project, ended)
    assert_dagster_agrees(machine.project)
