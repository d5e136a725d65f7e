"""Nobody deletes what they did not make, wherever it lies and however old it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from imgflow.catalog.lifecycle import delete_images
from imgflow.cli.main import app
from imgflow.errors import NotOurs
from imgflow.orchestration.dagster_storage.instance import environment, open_instance
from imgflow.service import up
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg

MakeSettings = Callable[..., Settings]

LONG_AGO = 30 * 3_600


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """An output location that several use."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def put(project: Project, *keys: str) -> None:
    for number, key in enumerate(keys):
        file = project.source.location.folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(seed=number))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def grow_old(folder: Path) -> None:
    """Make all files there as old as those that a reconciliation looks at."""
    then = time.time() - LONG_AGO
    for file in folder.rglob("*"):
        os.utime(file, (then, then))


@contextmanager
def another(settings: Settings) -> Iterator[Project]:
    """An imgflow with an instance of Dagster of its own."""
    variables = environment(settings, settings.database_url)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with open_instance(settings, settings.database_url) as instance:
            yield Project(settings, instance)


def everything(project: Project, key: str) -> None:
    """Whatever deletes anything, as its operator does it."""
    project.ingest()
    assert project.night() == {}
    remove(project, key)
    project.tick()
    assert project.night() == {}


def remove(project: Project, key: str) -> None:
    images = list(project.catalog.by_keys([key]).values())
    delete_images(project.catalog, project.outputs, images)


def test_files_of_people_in_the_output_location_stay(
    make_settings: MakeSettings, instance: dg.DagsterInstance, shared: Path
) -> None:
    project = Project(make_settings(output_url=shared.as_uri()), instance)
    put(project, "a.jpg", "b.jpg")
    project.ingest()
    digest = "0123456789abcdef" * 2
    (part,) = {path.split("/")[1] for path in bytes_in(shared) if path.startswith("thumbnail/")}
    theirs = [
        "thumbnail/holiday/mine.jpg",
        "thumbnail/mine.jpg",
        "proof/contract.pdf",
        "installed/tool/bin",
        "grayscale/a.jpg/@1.jpg",
        f"preview/a.jpg/@{digest}.png",
        f"thumbnail/{part}/a.jpg/mine.jpg",
        f"thumbnail/{part}/a.jpg/@{digest}.jpg.bak~",
        f"thumbnail/{part}/a.jpg/{digest}.jpg",
        f"thumbnail/{part}/@{digest}/notes.txt",
        "notes.txt",
    ]
    for name in theirs:
        file = shared / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"theirs")
    grow_old(shared)

    everything(project, "a.jpg")

    found = bytes_in(shared)
    assert {name: found.get(name) for name in theirs} == dict.fromkeys(theirs, b"theirs")


def test_outputs_of_another_imgflow_stay(
    make_settings: MakeSettings,
    make_database: Callable[[], str],
    tmp_path: Path,
    shared: Path,
) -> None:
    def settings(name: str) -> Settings:
        return make_settings(
            home=tmp_path / name, database_url=urls[name], output_url=shared.as_uri()
        )

    urls = {name: make_database() for name in ("first", "second")}
    with another(settings("first")) as first:
        put(first, "a.jpg", "b.jpg")
        first.ingest()
    grow_old(shared)
    before = bytes_in(shared)
    assert len(before) >= 4

    with another(settings("second")) as second:
        put(second, "a.jpg", "c.jpg")
        with pytest.raises(NotOurs, match="IMGFLOW_OUTPUT_URL"):
            second.ingest()
        runs = second.run_requests(second.tick())
        assert [run.success for run in runs] == [False]
        failed = second.night()
        assert failed.keys() == {"reconcile"}
        assert shared.as_uri() in failed["reconcile"]
        with pytest.raises(NotOurs):
            remove(second, "a.jpg")
        assert not second.materialize(["a.jpg"]).success
        with pytest.raises(NotOurs):
            up._prepare(second.settings, print, with_samples=False)
        done = CliRunner().invoke(app, ["ingest"])
        assert isinstance(done.exception, NotOurs)

    after = bytes_in(shared)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("count", [2, 3])
def test_outputs_of_other_sources_in_the_same_database_stay(
    make_settings: MakeSettings,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    shared: Path,
    count: int,
) -> None:
    def project(number: int) -> Project:
        source = tmp_path / f"source {number}"
        return Project(
            make_settings(source_url=source.as_uri(), output_url=shared.as_uri()), instance
        )

    for number in range(count):
        put(project(number), "a.jpg", "b.jpg")
        project(number).ingest()
    grow_old(shared)
    before = bytes_in(shared)
    assert len([name for name in before if name.startswith("thumbnail/")]) == 2 * count

    own = project(0)
    everything(own, "a.jpg")

    named = {
        record["name"]
        for image in own.catalog.page(limit=9, state="ready")
        for record in image.outputs.values()
    }
    after = bytes_in(shared)
    gone = set(before) - set(after)
    assert len(gone) == 2, "those of the deleted image, and no others"
    assert named <= set(after)
    assert {name: after[name] for name in before if name not in gone} == {
        name: body for name, body in before.items() if name not in gone
    }
    for number in range(1, count):
        other = project(number)
        images = other.catalog.page(limit=9, state="ready")
        assert [image.key for image in images] == ["a.jpg", "b.jpg"]
        assert all(other.outputs.get(r["name"]) for i in images for r in i.outputs.values())
    partitions = set(own.instance.get_dynamic_partitions("photos"))
    assert partitions == {"a.jpg", "b.jpg"}, "the others' partitions, too"
