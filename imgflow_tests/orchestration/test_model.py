"""Whatever happens in whatever order: in the end bucket, catalogue, outputs and Dagster agree.

The model is a dictionary of what lies in the bucket. Hypothesis makes up stories of uploads, ticks,
runs, operators and outages; after each step no reader may see half of an image, and when nothing is
left to do everything must follow from the dictionary.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from imgflow.catalog.depth_arrays import DepthArrays
from imgflow.catalog.embedded import EmbeddedPostgres
from imgflow.catalog.rows import Image
from imgflow.orchestration import worker
from imgflow.orchestration.instance import environment, open_instance
from imgflow.orchestration.maintenance import backfill_stale
from imgflow.orchestration.worker import Outcome, Task, WorkerConfig
from imgflow.settings import load_settings
from imgflow_tests.orchestration.crash_points import half_visible
from imgflow_tests.orchestration.project import SETS, Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg, png

PHOTO_KEYS = ("a.jpg", "b/c.png", "d.jpg", "e %41.jpg")
DEPTH_KEYS = ("h.csv", "z/h.CSV")
PHOTOS = (jpeg(8, 6), jpeg(8, 6, seed=1), png(6, 8, seed=2), b"no picture")
DEPTHS = (depth_csv(3, 8), depth_csv(5, 8, seed=1), b"no,table\nat,all\n")
BROKEN = {PHOTOS[-1], DEPTHS[-1]}
SIZES = (4, 5)  # of thumbnails
ROUNDS = 12


class InlinePool:
    """Does in this process what worker processes do; the pool has tests of its own."""

    def __init__(self, config: WorkerConfig, _workers: int) -> None:
        worker._config[:] = [config]
        worker.this_worker.cache_clear()

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        worker.this_worker.cache_clear()

    def outcomes(
        self, tasks: Sequence[Task], work: Callable[[Task], Outcome], _seconds: float
    ) -> Iterator[tuple[Task, Outcome]]:
        for task in tasks:
            yield task, work(task)


class Databases:
    """Fresh databases with all tables, which takes a second only for the first."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._names: list[str] = []
        # Nothing is to outlast the test, and half of its time would be waiting for the disk.
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("SELECT pg_reload_conf()")

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(self._postgres.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def make(self) -> str:
        name = f"model{uuid.uuid4().hex[:12]}"
        template = f" TEMPLATE {self._names[0]}" if self._names else ""
        self._execute(f"CREATE DATABASE {name}{template}")
        self._names.append(name)
        return self._postgres.url.replace("/imgflow?", f"/{name}?")

    def drop(self) -> None:
        for name in self._names:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._execute("ALTER SYSTEM RESET fsync")
        self._execute("SELECT pg_reload_conf()")


class Story(RuleBasedStateMachine):
    """One sequence of events on a fresh machine."""

    databases: Databases
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    known_outputs: dict[tuple[str, str, str], str]
    """SHA-256 of each output by content, name and recipe; the same in all stories."""

    def __init__(self) -> None:
        super().__init__()
        self.bucket: dict[str, bytes] = {}
        self.history: dict[str, set[bytes]] = {}
        self.requested: list[dg.SensorResult] = []
        self.is_broken = False
        self.stack = ExitStack()

    @initialize()
    def begin(self) -> None:
        url = self.databases.make()
        home = self.folder / uuid.uuid4().hex
        self.monkeypatch.delenv("IMGFLOW_SOURCE_URL", raising=False)  # of the story before
        self.monkeypatch.delenv("IMGFLOW_OUTPUT_URL", raising=False)
        self.monkeypatch.setenv("IMGFLOW_HOME", str(home))
        self.monkeypatch.setenv("IMGFLOW_DATABASE_URL", url)
        self.monkeypatch.setenv("IMGFLOW_THUMBNAIL_SIZE", str(SIZES[0]))
        settings = load_settings(_env_file=None)
        for name, value in environment(settings, url).items():
            self.monkeypatch.setenv(name, value)
        self.instance = self.stack.enter_context(open_instance(settings, url))
        self.project = self._project()

    def _project(self) -> Project:
        project = Project(load_settings(_env_file=None), self.instance)
        self.stack.callback(project.catalog.engine.dispose)
        return project

    # What happens outside -------------------------------------------------------------------------

    @rule(key=st.sampled_from(PHOTO_KEYS), body=st.sampled_from(PHOTOS))
    def upload_a_photo(self, key: str, body: bytes) -> None:
        self._upload(key, body)

    @rule(key=st.sampled_from(DEPTH_KEYS), body=st.sampled_from(DEPTHS))
    def upload_a_depth_image(self, key: str, body: bytes) -> None:
        self._upload(key, body)

    @precondition(lambda self: self.bucket)
    @rule(data=st.data())
    def upload_the_same_bytes_again(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.bucket)))
        self._upload(key, self.bucket[key])

    @precondition(lambda self: self.bucket)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.bucket)))
        del self.bucket[key]
        self.project.source.delete(key)

    def _upload(self, key: str, body: bytes) -> None:
        if key in self.bucket:  # a new file, as every tool of upload makes it
            self.project.source.delete(key)
        put(self.project, key, body)
        self.bucket[key] = body
        self.history.setdefault(key, set()).add(body)

    @rule()
    def the_output_store_breaks_or_is_mended(self) -> None:
        folder = self.project.outputs.location.folder
        away = folder.with_name("away")
        if self.is_broken:
            folder.unlink()
            away.rename(folder)
        else:
            folder.rename(away)
            folder.write_text("a file where a folder should be")
        self.is_broken = not self.is_broken

    # What imgflow and people do -------------------------------------------------------------------

    @rule()
    def tick(self) -> None:
        self.requested.append(self.project.tick())

    @rule()
    def time_passes_and_a_tick(self) -> None:
        self.project.end_pauses()
        self.requested.append(self.project.tick())

    @precondition(lambda self: self.requested)
    @rule(times=st.sampled_from((1, 1, 1, 2)))
    def requested_runs_are_executed(self, times: int) -> None:
        for _ in range(times):
            for result in self.requested:
                self.project.run_requests(result)
        self.requested = []

    @precondition(lambda self: self.requested)
    @rule()
    def the_last_request_is_lost(self) -> None:
        self.requested.pop()

    @rule(data=st.data(), force=st.booleans(), assets=st.sampled_from(((), ("metadata",))))
    def an_operator_materialises(
        self, data: st.DataObject, force: bool, assets: tuple[str, ...]
    ) -> None:
        name = data.draw(st.sampled_from(sorted(SETS.values())))
        if partitions := self.instance.get_dynamic_partitions(name):
            partition = data.draw(st.sampled_from(partitions))
            self.project.materialize([partition], assets=assets)
            if force:
                self.project.materialize([partition], force=True)

    @rule(size=st.sampled_from(SIZES))
    def the_recipe_changes(self, size: int) -> None:
        if self.is_broken:
            return
        self.monkeypatch.setenv("IMGFLOW_THUMBNAIL_SIZE", str(size))
        self.project = self._project()

    # What must hold -------------------------------------------------------------------------------

    @invariant()
    def nothing_is_half_visible(self) -> None:
        if not self.is_broken:
            assert half_visible(self.project) == []

    def teardown(self) -> None:
        try:
            if hasattr(self, "project"):
                self._settle()
                self._check()
        finally:
            self.stack.close()

    def _settle(self) -> None:
        if self.is_broken:
            self.the_output_store_breaks_or_is_mended()
        for result in self.requested:
            self.project.run_requests(result)
        backfill_stale(self.project.families, self.project.catalog)
        for _ in range(ROUNDS):
            self.project.end_pauses()
            result = self.project.tick()
            if not result.run_requests:
                return
            self.project.run_requests(result)
        raise AssertionError(f"after {ROUNDS} rounds there is still something to do")

    def _check(self) -> None:
        images = {image.key: image for image in self.project.catalog.page(limit=100)}
        assert half_visible(self.project) == []
        assert self.bucket.keys() <= images.keys() <= self.history.keys()
        assert {key: image.state for key, image in images.items() if key in self.bucket} == {
            key: "rejected" if body in BROKEN else "ready" for key, body in self.bucket.items()
        }
        for key, body in self.bucket.items():
            self._check_image(images[key], body)
        for key in images.keys() - self.bucket.keys():
            self._check_deleted(images[key])
        for kind, name in SETS.items():
            partitions = self.instance.get_dynamic_partitions(name)
            assert len(partitions) == len(set(partitions))
            for asset in self._assets(kind):
                self._check_colours(kind, asset)

    def _check_image(self, image: Image, body: bytes) -> None:
        upload = self.project.source.stat(image.key)
        assert upload is not None
        assert image.announced == image.processed == upload.identity
        if body in BROKEN:
            assert (image.outputs, bool(image.reason)) == ({}, True)
            return
        assert image.sha256 == hashlib.sha256(body).hexdigest()
        (family,) = (family for family in self.project.families if family.kind == image.kind)
        assert {name: record["fingerprint"] for name, record in image.outputs.items()} == dict(
            family.outputs
        )
        versions = {name: record["sha256"][:32] for name, record in image.outputs.items()}
        for name, record in image.outputs.items():
            recipe = (image.sha256, name, record["fingerprint"])
            assert self.known_outputs.setdefault(recipe, record["sha256"]) == record["sha256"]
        versions["source"] = image.announced
        for name, version in versions.items():
            newest = self.project.newest(f"{image.kind}/{name}", _partition(image.key))
            assert newest.tags["dagster/data_version"] == version, f"{name} of {image.key}"
        if image.kind == "depth":
            rows = DepthArrays(self.project.catalog.engine).read(image.id)
            assert len(rows.depths) == body.count(b"\n") - 1

    def _check_deleted(self, image: Image) -> None:
        """An image whose object is gone stays as it was when it was last processed, if it was."""
        assert image.state in ("ready", "rejected", "deleted")
        if image.state == "ready":
            contents = {hashlib.sha256(body).hexdigest() for body in self.history[image.key]}
            assert image.sha256 in contents

    def _check_colours(self, kind: str, asset: str) -> None:
        colours = self.project.statuses(f"{kind}/{asset}")
        keys = {key for key in self.bucket if key.lower().endswith(".csv") == (kind == "depth")}
        assert {key: colours.get(_partition(key)) for key in keys} == {
            key: "red" if self.bucket[key] in BROKEN else "green" for key in keys
        }, asset

    def _assets(self, kind: str) -> tuple[str, ...]:
        if kind == "depth":
            return ("resized", "preview", "metadata")
        return ("grayscale", "thumbnail", "metadata")


def _partition(key: str) -> str:
    return key.replace("%", "%25")


@pytest.mark.slow
def test_after_any_story_bucket_catalogue_outputs_and_dagster_agree(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgflow.orchestration.processing.WorkerPool", InlinePool)
    databases = Databases(postgres)
    attributes: dict[str, Any] = {
        "databases": databases,
        "folder": tmp_path,
        "monkeypatch": monkeypatch,
        "known_outputs": {},
    }
    try:
        template = type("Story", (Story,), attributes)()
        template.begin()
        template.stack.close()
        run_state_machine_as_test(
            type("Story", (Story,), attributes),
            settings=hypothesis_settings(
                max_examples=30,
                stateful_step_count=15,
                derandomize=True,
                # A story takes seconds; what fails is told in full rather than shortened.
                phases=(Phase.generate,),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        databases.drop()
