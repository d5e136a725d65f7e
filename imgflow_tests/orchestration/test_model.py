"""Whatever happens in whatever order: in the end bucket, catalogue, outputs and Dagster agree.

Hypothesis makes up stories of uploads, messages, ticks, runs, operators, nights and outages; after
each step no reader may see half of an image, and when nothing is left to do everything must follow
from the model (`model.py`).
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, seed
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

from imgflow.assembly import build_batching
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.lifecycle import delete_images
from imgflow.catalog.postgres import run_locks
from imgflow.catalog.records import kind_of
from imgflow.errors import Trouble
from imgflow.orchestration.dagster_storage.instance import environment, open_instance
from imgflow.orchestration.runs import execute
from imgflow.orchestration.runs.requests import request_batches, sensor_result
from imgflow.orchestration.sensing.listing import Follow, following
from imgflow.orchestration.sensing.notifications import take_in
from imgflow.orchestration.upkeep.reconcile import backfill_stale, reconcile
from imgflow.orchestration.upkeep.retention import clean_event_log
from imgflow.settings.variables import OnDelete, load_settings
from imgflow.store.s3.bucket_events import Scope
from imgflow_tests.orchestration.crash_points import half_visible
from imgflow_tests.orchestration.messages import record, s3_event
from imgflow_tests.orchestration.model import DEPTH_KEYS, DEPTHS, PHOTO_KEYS, PHOTOS, Model
from imgflow_tests.orchestration.project import SETS, Project
from imgflow_tests.orchestration.retained import JOBS
from imgflow_tests.orchestration.stand_ins import Databases, InlinePool, Mailbox
from imgflow_tests.orchestration.test_way import put

SIZES = (4, 5)  # of thumbnails
FEW, MANY = 2, 100_000  # partitions before images are sealed
SCOPE = Scope("uploads", "")
ROUNDS = 12

# For so long Dagster may take to launch what a tick asked for.
LAUNCH_SECONDS = 8


class Story(RuleBasedStateMachine):
    """One sequence of events on a fresh machine."""

    databases: Databases
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    known_outputs: dict[tuple[str, str, str], str]  # of the model

    def __init__(self) -> None:
        super().__init__()
        self.outbox: list[str] = []
        """Messages that the bucket has sent, and that have not arrived for good."""
        self.requested: list[tuple[dg.SensorResult, float]] = []
        """What ticks asked for and Dagster has not launched yet, and when it was asked."""
        self.is_broken = False
        self.stack = ExitStack()

    @initialize(
        policy=st.sampled_from(("keep", "tombstone", "delete")), hot=st.sampled_from((MANY, FEW))
    )
    def begin(self, policy: OnDelete, hot: int) -> None:
        self.hot = hot
        self.model = Model(policy, hot == MANY, self.known_outputs)
        url = self.databases.make()
        home = self.folder / uuid.uuid4().hex
        self.monkeypatch.delenv("IMGFLOW_SOURCE_URL", raising=False)  # of the story before
        self.monkeypatch.delenv("IMGFLOW_OUTPUT_URL", raising=False)
        self.monkeypatch.setenv("IMGFLOW_HOME", str(home))
        self.monkeypatch.setenv("IMGFLOW_DATABASE_URL", url)
        self.monkeypatch.setenv("IMGFLOW_THUMBNAIL_SIZE", str(SIZES[0]))
        self.monkeypatch.setenv("IMGFLOW_ON_DELETE", policy)
        settings = load_settings(_env_file=None)
        for name, value in environment(settings, url).items():
            self.monkeypatch.setenv(name, value)
        self.instance = self.stack.enter_context(open_instance(settings, url))
        self.project = self._project()

    def _project(self) -> Project:
        # The setting itself takes ten or more, and there are fewer images here. Nothing comes while
        # a tick looks, so each looks once.
        changed = {"hot_partitions": self.hot, "sensor_seconds": 5}
        settings = load_settings(_env_file=None).model_copy(update=changed)
        project = Project(settings, self.instance)
        self.stack.callback(project.catalog.engine.dispose)
        return project

    @property
    def follow(self) -> Follow:
        return following(
            self.project.catalog,
            self.project.source,
            lambda: self.project.outputs,
            self.model.policy,
        )

    # What happens outside -------------------------------------------------------------------------

    @rule(key=st.sampled_from(PHOTO_KEYS), body=st.sampled_from(PHOTOS))
    def upload_a_photo(self, key: str, body: bytes) -> None:
        self._upload(key, body)

    @rule(key=st.sampled_from(DEPTH_KEYS), body=st.sampled_from(DEPTHS))
    def upload_a_depth_image(self, key: str, body: bytes) -> None:
        self._upload(key, body)

    @precondition(lambda self: self.model.bucket)
    @rule(data=st.data())
    def upload_the_same_bytes_again_or_under_another_key(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.bucket)))
        keys = DEPTH_KEYS if kind_of(key) == "depth" else PHOTO_KEYS
        self._upload(data.draw(st.sampled_from((key, *keys))), self.model.bucket[key])

    @precondition(lambda self: self.model.bucket)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.bucket)))
        self.model.delete(key)
        self.project.source.delete(key)
        self.outbox.append(s3_event(record(key, "ObjectRemoved:Delete")))

    def _upload(self, key: str, body: bytes) -> None:
        if key in self.model.bucket:  # a new file, as every tool of upload makes it
            self.project.source.delete(key)
        put(self.project, key, body)
        self.model.put(key, body)
        self.outbox.append(s3_event(record(key)))

    @rule()
    def the_output_store_breaks_or_is_fixed(self) -> None:
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
        self._ask(self.project.tick())

    @rule()
    def time_passes_and_a_tick(self) -> None:
        self._time_passes()
        self._ask(self.project.tick())

    @precondition(lambda self: self.outbox)
    @rule(data=st.data(), are_kept=st.booleans())
    def messages_arrive(self, data: st.DataObject, are_kept: bool) -> None:
        """Some of them, in any order, twice, or to come once more."""
        numbers = st.sampled_from(range(len(self.outbox)))
        arriving = data.draw(st.lists(numbers, min_size=1, max_size=4))
        bodies = [self.outbox[number] for number in arriving]
        rest = [body for n, body in enumerate(self.outbox) if are_kept or n not in arriving]
        self.outbox = rest + self._take(bodies)

    def _take(self, bodies: Sequence[str]) -> list[str]:
        """One evaluation of the queue's sensor; returns messages that stayed in the queue."""
        project, queue = self.project, Mailbox(bodies)
        try:
            take_in(queue, SCOPE, project.source, project.catalog, self.follow)
        except Trouble:
            assert self.is_broken
        else:
            requests = request_batches(
                project.families,
                project.catalog,
                self.instance,
                batching=build_batching(project.settings),
            )
            self._ask(sensor_result(requests, otherwise=""))
        return [message.body.decode() for message in queue.messages]

    @precondition(lambda self: self.requested)
    @rule(times=st.sampled_from((1, 1, 1, 2)))
    def requested_runs_are_executed(self, times: int) -> None:
        for _ in range(times):
            for result, asked in self.requested:
                self._launch(result, asked)
        self.requested = []

    @precondition(lambda self: self.requested)
    @rule()
    def requested_runs_die_before_their_events(self) -> None:
        def die(_context: Any, events: Sequence[Any]) -> None:
            if events:
                raise RuntimeError("the process dies")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execute, "report_images", die)
            self.requested_runs_are_executed(1)

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

    @rule(data=st.data(), is_source_too=st.booleans())
    def an_operator_deletes_an_image(self, data: st.DataObject, is_source_too: bool) -> None:
        images = self.project.catalog.page(limit=100)
        if not images or self.is_broken:
            return
        image = data.draw(st.sampled_from(images))
        upload = self.project.source.stat(image.key)
        source = self.project.source if is_source_too else None
        delete_images(self.project.catalog, self.project.outputs, [image], source=source)
        if is_source_too and image.gone_at is None:
            self.model.bucket.pop(image.key, None)
        elif upload and upload.identity == image.announced and image.gone_at is None:
            self.model.withdrawn.add(image.key)  # else the present upload is a newer one

    @rule()
    def someone_retries(self) -> None:
        images = self.project.catalog.page(limit=100)
        self.project.catalog.reopen([image.id for image in images if image.state == "rejected"])

    @rule(size=st.sampled_from(SIZES), is_backfilled=st.booleans())
    def the_recipe_changes(self, size: int, is_backfilled: bool) -> None:
        if self.is_broken:
            return
        self.monkeypatch.setenv("IMGFLOW_THUMBNAIL_SIZE", str(size))
        self.project = self._project()
        if is_backfilled:
            backfill_stale(self.project.families, self.project.catalog)

    @rule()
    def a_night_passes(self) -> None:
        """Reconciliation and retention."""
        with suppress(Trouble) if self.is_broken else ExitStack():
            self._reconcile()
        self._clean()

    def _reconcile(self) -> None:
        project = self.project
        reconcile(
            project.families,
            project.catalog,
            self.instance,
            project.source,
            project.outputs,
            follow=self.follow,
        )

    def _clean(self) -> None:
        now = datetime.now(UTC)
        clean_event_log(self.instance, self.project.families, jobs=JOBS, older_than=now)

    def _ask(self, result: dg.SensorResult) -> None:
        self.requested.append((result, time.monotonic()))

    def _time_passes(self) -> None:
        self.project.end_pauses()
        self.requested = [(result, 0.0) for result, _ in self.requested]

    def _launch(self, result: dg.SensorResult, asked: float) -> None:
        """Dagster refuses a run whose partitions are gone; that must not be so at once."""
        known = {
            key for name in SETS.values() for key in self.instance.get_dynamic_partitions(name)
        }
        bounds = {
            value
            for request in result.run_requests or ()
            for tag, value in request.tags.items()
            if tag.startswith("dagster/asset_partition_range")
        }
        if bounds <= known:
            self.project.run_requests(result)
        else:
            assert time.monotonic() - asked > LAUNCH_SECONDS, f"{bounds - known} left too early"

    # What must hold -------------------------------------------------------------------------------

    @invariant()
    def nothing_is_half_visible(self) -> None:
        if not self.is_broken:
            assert half_visible(self.project) == []

    def teardown(self) -> None:
        try:
            if hasattr(self, "project"):
                self._settle()
                self.model.check(self.project)
                self._clean()
                self.model.check(self.project)
        finally:
            self.stack.close()

    def _settle(self) -> None:
        if self.is_broken:
            self.the_output_store_breaks_or_is_fixed()
        for result, asked in self.requested:
            self._launch(result, asked)
        assert self._take(self.outbox) == []
        self.requested = []
        self.project.end_pauses()
        self._reconcile()
        self._work_off()
        # What a run over a broken store has made red of ready images is told by another night.
        self._reconcile()
        self._work_off()

    def _work_off(self) -> None:
        for _ in range(ROUNDS):
            self.project.end_pauses()
            result = self.project.tick()
            if not result.run_requests:
                return
            self.project.run_requests(result)
        raise AssertionError(f"after {ROUNDS} rounds there is still something to do")


@pytest.mark.slow
def test_after_any_story_bucket_catalogue_outputs_and_dagster_agree(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "WorkerPool", InlinePool)
    monkeypatch.setattr(run_locks, "SETTLE_SECONDS", 0)  # the server may have started just now
    databases = Databases(postgres)
    attributes: dict[str, Any] = {
        "databases": databases,
        "folder": tmp_path,
        "monkeypatch": monkeypatch,
        "known_outputs": {},
    }
    try:
        template = type("Story", (Story,), attributes)()
        template.begin("keep", MANY)
        template.stack.close()
        machine = type("Story", (Story,), attributes)
        if "IMGFLOW_TEST_SEED" in os.environ:  # other stories than those of every day
            machine = seed(int(os.environ["IMGFLOW_TEST_SEED"]))(machine)
        run_state_machine_as_test(
            machine,
            settings=hypothesis_settings(
                max_examples=20,
                stateful_step_count=20,
                derandomize="IMGFLOW_TEST_SEED" not in os.environ,
                # A story takes seconds; what fails is told in full rather than shortened.
                phases=(Phase.generate,),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        databases.drop()
