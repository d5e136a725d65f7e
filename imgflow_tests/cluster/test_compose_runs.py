"""The services of the compose file, by their own commands, against real parts."""

from __future__ import annotations

import httpx
import pytest

from imgflow_tests.cluster.cluster import Cluster, until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.pictures import depth_csv, jpeg

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_every_service_is_well_by_its_own_health_check(cluster: Cluster) -> None:
    asked = [name for name, spec in cluster.specs.items() if spec.healthcheck and name != "s3"]
    assert len(asked) >= 9
    for name in asked:
        done = cluster.check(name)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", ["worker", "worker-depth", "worker-other"])
def test_a_worker_has_imported_what_its_first_run_needs(cluster: Cluster, name: str) -> None:
    commands = [" ".join(process.cmdline()) for process in cluster.processes(name)]
    (server,) = [command for command in commands if "multiprocessing.forkserver" in command]
    assert "imgflow.work.photographs" in server
    assert "imgflow.store.s3.source_bucket" in server


def test_services_have_machines_of_their_own(cluster: Cluster) -> None:
    assert len({machine.address for machine in cluster.machines.values()}) == len(cluster.machines)


def test_an_upload_becomes_a_picture_by_way_of_a_worker(observer: Observer, name: str) -> None:
    observer.upload({f"{name}/a.jpg": jpeg(seed=1), f"{name}/b.csv": depth_csv(seed=1)})
    photo, depth = observer.ready(f"{name}/a.jpg", f"{name}/b.csv")
    for image, kind in ((photo, "photo"), (depth, "depth")):
        _, tags = until(
            lambda image=image: (found := observer.run(image.run_id))[0] == "SUCCESS" and found,
            "the run has ended",
        )
        assert tags["imgflow/kind"] == tags["dagster-celery/queue"] == kind
        assert tags["dagster-celery/task_id"]
    token = observer.cluster.variables["API_TOKEN"]
    api = observer.cluster.url("api", 8000)
    for path in (f"images/{photo.id}/thumbnail", f"image/{depth.id}?depth_min=9000.2"):
        shown = httpx.get(f"{api}/{path}", headers={"Authorization": f"Bearer {token}"})
        assert shown.status_code == 200
        assert shown.content.startswith(b"\xff\xd8")
    assert httpx.get(f"{api}/images").status_code == 401


def test_the_dagster_ui_has_the_definitions_of_the_code_server(observer: Observer) -> None:
    assert observer.ui.locations() == {"imgflow": "LOADED"}


def test_what_a_person_materialises_goes_to_a_worker_of_its_own(
    observer: Observer, name: str
) -> None:
    key = f"{name}/a.jpg"
    observer.upload({key: jpeg(seed=2)})
    observer.ready(key)
    run_id = observer.ui.materialize(key, "photo/thumbnail")
    until(lambda: observer.run(run_id)[0] == "SUCCESS", "the run has ended")
    assert observer.worker_of(run_id) == "worker-other"


def test_what_waits_is_divided_among_the_workers(observer: Observer, name: str) -> None:
    files = {f"{name}/{number:03}.jpg": jpeg(seed=number) for number in range(120)}
    cluster = observer.cluster
    cluster.stop("daemon")  # so that all of it waits
    observer.upload(files)
    cluster.start("daemon", wait=False)
    images = observer.ready(*files, seconds=120)
    runs = {str(image.run_id) for image in images}
    assert len(runs) == 2
    assert {observer.worker_of(run_id) for run_id in runs} == {"worker", "worker-2"}


def test_photographs_are_done_while_depth_images_go_on(observer: Observer, name: str) -> None:
    depth = [f"{name}/{number}.csv" for number in range(3)]
    with observer.depth_runs_held():
        for number, key in enumerate(depth[:2], start=1):
            observer.upload({key: depth_csv(seed=10 + number)})
            until(lambda number=number: len(observer.going_on("depth")) == number, "it goes on")
        observer.upload({depth[2]: depth_csv(seed=20)})
        observer.upload({f"{name}/{number}.jpg": jpeg(seed=30 + number) for number in range(20)})
        observer.ready(*(f"{name}/{number}.jpg" for number in range(20)))
        assert len(observer.going_on("depth")) == 2
    observer.ready(*depth)


def test_a_run_that_is_terminated_frees_its_worker(observer: Observer, name: str) -> None:
    with observer.depth_runs_held():
        observer.upload({f"{name}/a.csv": depth_csv(seed=40)})
        (run_id,) = until(lambda: observer.going_on("depth"), "it goes on")
        observer.ui.terminate(run_id)
        until(lambda: observer.run(run_id)[0] == "CANCELED", "it is canceled")
    observer.ready(f"{name}/a.csv")


def test_a_worker_that_is_asked_to_end_ends_its_run_first(observer: Observer, name: str) -> None:
    cluster = observer.cluster
    with observer.depth_runs_held():
        observer.upload({f"{name}/a.csv": depth_csv(seed=50)})
        (run_id,) = until(lambda: observer.going_on("depth"), "it goes on")
        worker = until(lambda: observer.worker_of(run_id), "its worker says so")
        cluster.signal(worker)
        until(lambda: "Warm shutdown" in cluster.log(worker), "it has heard")
        assert cluster.is_running(worker)
    observer.ready(f"{name}/a.csv")
    assert cluster.stop(worker) == 0
    assert observer.run(run_id)[0] == "SUCCESS"
    cluster.start(worker)
