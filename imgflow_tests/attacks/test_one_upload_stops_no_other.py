"""An uploader sends a file that makes its worker raise, so that files of others wait for ever.

Whatever is raised where an image is worked on, or where its outcome is written down, costs that
image only; and what is wrong with the machine is no verdict about any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgflow.advice import ADVICE
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Verdict
from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.depth.readers import registry
from imgflow.errors import Trouble
from imgflow.images.formats.decoding import Limits
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.orchestration.runs.materializations import finished_events
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.output_store import OutputStore
from imgflow.work import batch
from imgflow.work.pool import WorkerPool
from imgflow.work.tasks import Finished, Outcome, Summary, Task, WorkerConfig
from imgflow_tests.attacks.raising import IMAGES_OWN, OUTSIDE, work
from imgflow_tests.catalog.uploads import announced, row, verdict
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv


def npy(shape: str) -> bytes:
    """A small table under a header of any shape."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(240)


# Too long for an index, also when it is compressed.
LONG_CODE = "".join(map(chr, range(1, 9_000)))

POISON = {
    "poison.npy": (npy("(5, -3)"), "not_a_table"),
    "rows.npy": (npy("(-5, 3)"), "not_a_table"),
    "boolean.npy": (npy("(True, 3)"), "not_a_table"),
    "huge.npy": (npy("(10000000000000000000000, 3)"), "too_many_rows"),
    "bracket.npy": (npy("(5, 3"), "corrupt_npy"),
    "nested.npy": (npy("(" * 60), "corrupt_npy"),
}


@pytest.fixture
def make_project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    return lambda **values: Project(make_settings(**values), instance)


def test_tables_whose_headers_lie_are_rejected_and_forty_others_are_done_by_the_first_run(
    make_project: Callable[..., Project], instance: dg.DagsterInstance
) -> None:
    project = make_project()
    folder = project.source.location.folder
    good = [f"hole-{number:02}.csv" for number in range(40)]
    for number, key in enumerate(good):
        (folder / key).write_bytes(depth_csv(rows=10, seed=number))
    for key, (body, _) in POISON.items():
        (folder / key).write_bytes(body)
    report = project.ingest()
    rows = project.catalog.by_keys([*good, *POISON])
    assert {rows[key].state for key in good} == {"ready"}
    assert {key: rows[key].reason_code for key in POISON} == {
        key: code for key, (_, code) in POISON.items()
    }
    assert (report.processed, report.rejected, report.failed) == (40, len(POISON), 0)
    assert len(instance.get_runs()) == 1


class Raising:
    """A reader of another package that does what it must not do."""

    media_type = "text/plain"

    def read(self, stream: Any, _limits: Any) -> Any:
        raise ZeroDivisionError(next(iter(stream)))


class _Point:
    def load(self) -> type[Raising]:
        return Raising


class _Broken:
    def load(self) -> type[Raising]:
        raise SyntaxError("invalid syntax (reader.py, line 1)")


def test_a_reader_of_another_package_that_raises_is_met_by_its_own_file_only(
    worker_config: WorkerConfig, catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pool's processes would not see the patch, so this is done where they do it.
    from imgflow.work.depth_images import process_depth
    from imgflow.work.photographs import Worker, answered

    found = {**registry.readers(), ".las": _Point(), ".bad": _Broken()}
    monkeypatch.setattr(registry, "readers", lambda: found)
    url = catalog.engine.url.render_as_string(hide_password=False)
    worker = Worker(replace(worker_config, database_url=url))
    outcomes = {}
    for name in ("a.las", "a.bad"):
        (worker.source.location.folder / name).write_bytes(b"text")  # type: ignore[union-attr]
        (upload,) = [one for one in worker.source.list_page(None, 9).objects if one.key == name]
        task = Task(1, upload, "r", frozenset(), {"resized": "f", "preview": "f"})
        outcomes[name] = answered(task, lambda task: process_depth(worker, task))
    assert "ZeroDivisionError: b'text'" in str(outcomes["a.las"].failure)
    assert outcomes["a.las"].trouble is None
    assert outcomes["a.bad"].failure is None, "whoever installed the package fixes it"
    assert "The reader of .bad that an installed package brings" in str(outcomes["a.bad"].trouble)


@pytest.fixture
def worker_config(tmp_path: Path) -> WorkerConfig:
    (tmp_path / "in").mkdir()
    return WorkerConfig(
        stores=StoreConfig((tmp_path / "in").as_uri(), (tmp_path / "out").as_uri()),
        database_url="postgresql://127.0.0.1:1/none",
        source=f"{(tmp_path / 'in').as_uri()}/",
        photo_recipe=PhotoRecipe(),
        photo_limits=Limits(),
        depth_recipe=DepthRecipe(),
        decode_seconds=60,
        depth_seconds=60,
    )


def tasks(keys: list[str]) -> list[Task]:
    from imgflow_tests.catalog.uploads import upload

    return [
        Task(number, upload(key), "the-run", frozenset(), {}) for number, key in enumerate(keys)
    ]


@pytest.mark.parametrize("together", [1, 8])
def test_whatever_a_worker_raises_or_answers_is_the_outcome_of_its_own_task(
    worker_config: WorkerConfig, together: int, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [key for bad in [*IMAGES_OWN, *OUTSIDE] for key in (f"good beside {bad}", bad)]
    with caplog.at_level(logging.ERROR), WorkerPool(worker_config, 2) as pool:
        outcomes = {
            task.upload.key: outcome
            for task, outcome in pool.outcomes(tasks(keys), work, 60, together=together)
        }
    assert set(outcomes) == set(keys)
    for key, outcome in outcomes.items():
        if key in OUTSIDE:
            assert outcome.verdict is None, key
            assert outcome.trouble, key
            continue
        assert outcome.verdict is not None, (key, outcome)
        if key not in IMAGES_OWN:
            assert outcome.verdict.state == "ready", key
            continue
        assert (outcome.verdict.state, outcome.verdict.reason_code) == ("rejected", "failed"), key
        assert len(outcome.verdict.reason or "") <= 1_000
    reason = str(outcomes["value"].verdict.reason)  # type: ignore[union-attr]
    assert "ValueError: Number of columns must not be negative" in reason
    assert ADVICE["failed"]
    (told,) = [text for text in caplog.messages if "must not be negative" in text]
    assert "run the-run, image 'value'" in told
    assert "Traceback" in told


def out_of_bounds(images: list[Any]) -> dict[str, Verdict]:
    """Verdicts that PostgreSQL refuses, as readers and outputs of other packages may give them."""
    odd = dict(zip(("wide", "code", "json", "cycle", "size"), images, strict=False))
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return {
        "wide": verdict(odd["wide"], width=2**40),
        "code": verdict(odd["code"], "rejected", reason="r", reason_code=LONG_CODE),
        "json": verdict(odd["json"], facts={"value": object()}),
        "cycle": verdict(odd["cycle"], facts=cycle),
        "size": verdict(odd["size"], mode=object()),
    }


def test_a_verdict_that_the_database_refuses_costs_its_own_image_only(
    catalog: PostgresCatalog,
) -> None:
    good = announced(catalog, *(f"good-{number}.jpg" for number in range(20)))
    bad = announced(catalog, *(f"bad-{number}.jpg" for number in range(5)))
    refused = out_of_bounds(bad)
    verdicts = [*(verdict(image) for image in good), *refused.values()]
    by_id = {image.id: image for image in [*good, *bad]}
    outcomes = [
        (
            Task(one.image_id, one.upload, "run", frozenset(), {}),
            Outcome(one),
        )
        for one in [*verdicts[:3], *verdicts[20:], *verdicts[3:20]]
    ]
    summary = Summary()
    batch.run_tasks(
        list(by_id.values()),
        iter(outcomes),
        catalog,
        open_outputs=_no_outputs,
        report=lambda _done: [],
        summary=summary,
    )
    assert {row(catalog, image.key).state for image in good} == {"ready"}
    found = {name: row(catalog, image.key) for name, image in zip(refused, bad, strict=True)}
    assert {image.state for image in found.values()} == {"rejected"}
    assert {found[name].reason_code for name in ("wide", "json", "cycle", "size")} == {"failed"}
    assert (summary.processed, len(summary.rejected), summary.troubled) == (20, 5, {})


def test_an_image_of_which_no_event_can_be_made_is_rejected_and_the_others_are_reported(
    catalog: PostgresCatalog,
) -> None:
    good, bad = announced(catalog, "good.jpg", "bad.jpg")
    reported: list[str] = []

    def report(done: list[Finished]) -> list[Finished]:
        failed = []
        for one in done:
            try:
                list(finished_events(_family(), ["metadata"], [one]))
                reported.append(one.image.key)
            except Exception as error:
                failed.append(batch.failed(one, error))
        return failed

    without_size = {"thumbnail": {"sha256": "ab", "fingerprint": "f", "name": "n"}}
    summary = Summary()
    batch.run_tasks(
        [good, bad],
        iter(
            [
                (Task(good.id, good.newest_upload, "run", frozenset(), {}), Outcome(verdict(good))),
                (
                    Task(bad.id, bad.newest_upload, "run", frozenset(), {}),
                    Outcome(replace(verdict(bad), outputs=without_size)),
                ),
            ]
        ),
        catalog,
        open_outputs=_no_outputs,
        report=report,
        summary=summary,
    )
    assert reported == ["good.jpg"]
    assert row(catalog, "good.jpg").state == "ready"
    found = row(catalog, "bad.jpg")
    assert (found.state, found.reason_code, found.outputs) == ("rejected", "failed", {})
    assert (summary.processed, list(summary.rejected)) == (1, ["bad.jpg"])


def test_a_database_that_is_away_is_no_verdict_about_an_image(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = announced(catalog, "a.jpg")

    def away(_verdicts: object) -> set[int]:
        raise Trouble("the database does not answer")

    monkeypatch.setattr(catalog, "record", away)
    task = Task(image.id, image.newest_upload, "run", frozenset(), {})
    with pytest.raises(Trouble):
        batch.run_tasks(
            [image],
            iter([(task, Outcome(verdict(image)))]),
            catalog,
            open_outputs=_no_outputs,
            report=lambda _done: [],
            summary=Summary(),
        )


def _no_outputs() -> OutputStore:
    raise AssertionError("nothing is removed")


def _family() -> Any:
    from imgflow.assembly import build_families
    from imgflow.settings.variables import load_settings

    return build_families(load_settings(_env_file=None))[0]
