"""How much a run takes, and how many there are at a time."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import pytest

from imgflow.catalog.postgres.run_locks import Pace
from imgflow.orchestration.dagster_storage.event_log import BulkPostgresEventLogStorage
from imgflow.orchestration.runs.requests import Batching, BatchRequest, request_batches
from imgflow_tests.catalog.uploads import upload
from imgflow_tests.orchestration.project import Project

PACE = Pace(8, 8e6)


def requests(
    project: Project, batching: Batching, *, most: int | None = None
) -> Sequence[BatchRequest]:
    return request_batches(
        project.families, project.catalog, project.instance, batching=batching, most=most
    ).batches


def announced(project: Project, *sizes: int, kind: str = "jpg") -> None:
    project.catalog.announce(
        [upload(f"{number:03}.{kind}", size=size) for number, size in enumerate(sizes)]
    )


def queued(project: Project, request: BatchRequest) -> dg.DagsterRun:
    job = project.definitions.resolve_job_def(request.family.job)
    return project.instance.create_run_for_job(job, tags=request.tags)


@pytest.fixture
def pace(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images and eight megabytes a second."""
    monkeypatch.setattr(project.catalog.holds, "pace", lambda _kind: PACE)


@pytest.mark.usefixtures("pace")
def test_a_run_is_sized_for_its_time_by_the_pace_of_earlier_ones(project: Project) -> None:
    announced(project, *[1_000_000] * 50)
    found = requests(project, Batching(seconds=2, runs=9))
    assert [len(request.image_ids) for request in found] == [16, 16, 16, 2]


@pytest.mark.usefixtures("pace")
def test_an_upload_that_takes_longer_has_a_run_of_its_own(project: Project) -> None:
    announced(project, 1_000_000, 500_000_000, 1_000_000, 1_000_000)
    found = requests(project, Batching(seconds=2, runs=9))
    assert sorted(len(request.image_ids) for request in found) == [1, 1, 2]


@pytest.mark.usefixtures("pace")
def test_in_a_cluster_what_waits_is_divided_among_the_free_workers(project: Project) -> None:
    announced(project, *[1_000_000] * 80)
    found = requests(project, Batching(runs=3, is_spread=True))
    assert [len(request.image_ids) for request in found] == [27, 27, 26]


@pytest.mark.usefixtures("pace")
def test_images_of_any_size_are_divided_as_evenly_as_they_can_be(project: Project) -> None:
    sizes = [number % 7 * 900_000 for number in range(300)]
    announced(project, *sizes)
    found = requests(project, Batching(runs=4, is_spread=True))
    seconds = [
        sum(PACE.seconds(sizes[int(key.partition(".")[0])]) for key in request.range.wanted)
        for request in found
    ]
    assert len(found) == 4
    assert max(seconds) < 1.06 * sum(seconds) / 4


@pytest.mark.usefixtures("pace")
def test_a_few_images_are_not_worth_a_second_worker(project: Project) -> None:
    announced(project, *[1_000_000] * 12)
    assert len(requests(project, Batching(runs=3, is_spread=True))) == 1


def test_what_waits_beyond_the_runs_in_hand_is_not_queued_as_runs(project: Project) -> None:
    announced(project, *[10] * 10)
    batching = Batching(images=2, runs=2)
    first, second = requests(project, batching)
    runs = [queued(project, first), queued(project, second)]
    assert requests(project, batching) == []
    project.instance.report_run_canceled(runs[0])
    (third,) = requests(project, batching)
    assert set(third.image_ids).isdisjoint(first.image_ids + second.image_ids)


def test_runs_of_one_family_do_not_hold_up_the_other(project: Project) -> None:
    announced(project, 10, 10)
    announced(project, 10, kind="csv")
    batching = Batching(images=1, runs=1)
    found = requests(project, batching)
    assert [request.family.kind for request in found] == ["photo", "depth"]
    queued(project, found[0])
    assert requests(project, batching) == []


def test_a_run_of_an_operator_takes_no_place_in_the_queue(project: Project) -> None:
    announced(project, 10)
    job = project.definitions.resolve_job_def("process_photos")
    project.instance.create_run_for_job(job, tags={"dagster/partition": "000.jpg"})
    assert len(requests(project, Batching(runs=1))) == 1


def test_who_executes_in_its_own_process_asks_for_one_run_at_a_time(project: Project) -> None:
    announced(project, *[10] * 4)
    found = requests(project, Batching(images=2), most=1)
    assert [len(request.image_ids) for request in found] == [2]
    assert len(requests(project, Batching(images=2))) == 1, "the others wait for anyone"


def test_new_uploads_are_asked_for_without_reading_the_partitions_there_are(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced(project, 10, 10)
    (first,) = requests(project, Batching())
    reads: list[str] = []
    read = BulkPostgresEventLogStorage.get_dynamic_partitions

    def counted(storage: BulkPostgresEventLogStorage, name: str) -> Sequence[str]:
        reads.append(name)
        return read(storage, name)

    monkeypatch.setattr(BulkPostgresEventLogStorage, "get_dynamic_partitions", counted)
    project.catalog.announce([upload("x.jpg"), upload("y.jpg")])
    (second,) = requests(project, Batching())
    assert (second.range.start, second.range.end) == ("x.jpg", "y.jpg")
    assert reads == []

    project.catalog.announce([upload(first.range.end, size=11), upload("z.jpg")])
    found = requests(project, Batching(runs=9))
    assert reads == ["photos"], "where an overwritten one stands is known only from the others"
    assert [request.range.wanted for request in found] == [(first.range.end,), ("z.jpg",)], (
        "those between them are in the hands of a run"
    )
