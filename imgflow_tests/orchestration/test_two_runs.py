"""Two processes on the same images at once: what is there in the end is what one would leave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgflow_tests.orchestration.crash_points import half_visible, state_of
from imgflow_tests.orchestration.processes import READS, Ended, Gate, Server
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

PHOTOS = [f"photo-{number:02}.jpg" for number in range(60)]
DEPTH_IMAGES = [f"hole-{number}.csv" for number in range(6)]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    both = Server(), Server()
    yield both
    for server in both:
        server.stop()


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for every read of a source object."""
    file = tmp_path / "reads"
    file.touch()
    monkeypatch.setenv(READS, str(file))
    return file


@pytest.fixture
def uploads(project: Project) -> Project:
    for seed, key in enumerate(PHOTOS):
        put(project, key, jpeg(seed=seed))
    for seed, key in enumerate(DEPTH_IMAGES):
        put(project, key, depth_csv(30, seed=seed))
    return project


def at_once(
    servers: tuple[Server, Server], gate: Gate, folder: Path, *orders: tuple[str, ...]
) -> list[Ended]:
    """Start two processes at the same moment, and wait for both."""
    for server, order in zip(servers, orders, strict=True):
        server.start(gate, folder, *order)
    with gate.held("start", "start"):
        pass
    return [server.ended() for server in servers]


def assert_as_one_run_leaves_it(project: Project) -> None:
    """Rows, outputs, arrays, partitions and newest events are whole, and belong together."""
    state = state_of(project)
    assert {key: row["state"] for key, row in state["rows"].items()} == dict.fromkeys(
        PHOTOS + DEPTH_IMAGES, "ready"
    )
    assert [key for key, row in state["rows"].items() if not row["settled"]] == []
    assert half_visible(project) == []
    assert state["orphans"] == []
    assert len(state["stored"]) == 2 * len(PHOTOS) + len(DEPTH_IMAGES)
    assert [array[:3] for array in state["arrays"]] == [[k, "True", "30"] for k in DEPTH_IMAGES]
    for asset, colours in state["colours"].items():
        keys = PHOTOS if asset.startswith("photo") else DEPTH_IMAGES
        assert colours == dict.fromkeys(sorted(keys), "green"), asset
    odd = {
        of: said for of, said in state["versions"].items() if "instead" in said or said == "none"
    }
    assert odd == {}
    assert {str(run.status.value) for run in project.runs()} == {"SUCCESS"}
    assert project.tick().run_requests == []


def assert_overlap(project: Project, job: str) -> None:
    """Two runs of a job were under way at the same time."""
    records = [r for r in project.instance.get_run_records() if r.dagster_run.job_name == job]
    (first, second) = sorted(records, key=lambda record: record.start_time or 0)
    assert second.start_time is not None
    assert first.end_time is not None
    assert second.start_time < first.end_time, "one was over before the other began"


def test_two_ingests_at_once_process_each_image_once(
    uploads: Project, servers: tuple[Server, Server], gate: Gate, reads: Path, tmp_path: Path
) -> None:
    for server in servers:
        server.start(gate, tmp_path, "imgflow", "ingest", "--json", hold="listed")
    with gate.held("start", "start"):
        pass
    with gate.held("listed", "listed"):
        pass  # both know what is there, and ask for runs at the same moment
    ended = [server.ended() for server in servers]

    assert [(one.code, one.log) for one in ended if one.code] == []
    assert_as_one_run_leaves_it(uploads)
    assert Counter(reads.read_text().split()) == dict.fromkeys(PHOTOS + DEPTH_IMAGES, 1)
    reports = [json.loads(one.output.splitlines()[-1]) for one in ended]
    assert sum(report["processed"] for report in reports) == 66
    assert [report["failed"] + report["rejected"] for report in reports] == [0, 0]
    assert [report["processed"] + report["unchanged"] for report in reports] == [66, 66]


def test_two_operators_who_materialise_the_same_range_at_once(
    uploads: Project, servers: tuple[Server, Server], gate: Gate, reads: Path, tmp_path: Path
) -> None:
    uploads.instance.add_dynamic_partitions("photos", PHOTOS)
    uploads.instance.add_dynamic_partitions("depth_images", DEPTH_IMAGES)
    for job, keys in (("process_photos", PHOTOS), ("process_depth_images", DEPTH_IMAGES)):
        order = ("materialize", keys[0], keys[-1])
        ended = at_once(servers, gate, tmp_path, order, order)
        assert [(one.code, one.log) for one in ended if one.code] == []
        assert_overlap(uploads, job)
    assert_as_one_run_leaves_it(uploads)
    assert max(Counter(reads.read_text().split()).values()) == 2, "they never met"


def test_an_operator_materialises_what_a_batch_has_in_hand(
    uploads: Project, servers: tuple[Server, Server], gate: Gate, reads: Path, tmp_path: Path
) -> None:
    uploads.instance.add_dynamic_partitions("photos", PHOTOS)
    ended = at_once(servers, gate, tmp_path, ("batches",), ("materialize", PHOTOS[0], PHOTOS[-1]))
    assert [(one.code, one.log) for one in ended if one.code] == []
    assert_overlap(uploads, "process_photos")
    assert_as_one_run_leaves_it(uploads)
    assert max(Counter(reads.read_text().split()).values()) == 2, "they never met"
