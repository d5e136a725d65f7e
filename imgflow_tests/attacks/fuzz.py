"""Damaged inputs by the hundred thousand, through the code that workers and runs put them through.

    python -m imgflow_tests.attacks.fuzz depth|photo [--count N] [--seed S] [--pool N] [--only CASE]

Each is ready or rejected; anything else is a find: an exception that is no `Rejected`, a signal,
too much time, a fact that is no finite number, events or a page that cannot be made. Seeds are made
here, and taken from `IMGFLOW_TEST_CORPUS` where that is set. With `--pool` so many go through real
pool processes into a real database instead, in one batch, which has to end.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from imgflow.api.gallery.presenting import Filters, card_of, metadata_of, pictures_of
from imgflow.api.routes.representations import item_of
from imgflow.assembly import build_families
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.database.tables import storable_json
from imgflow.catalog.postgres.depth_arrays import copy_blocks
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, Verdict
from imgflow.errors import Rejected
from imgflow.orchestration.runs.materializations import finished_events
from imgflow.settings.variables import load_settings
from imgflow.store.config import StoreConfig
from imgflow.store.objects import SourceObject
from imgflow.work import batch, depth_images, photographs
from imgflow.work.pool import WorkerPool, group_size
from imgflow.work.tasks import Finished, Outcome, Summary, Task, WorkerConfig
from imgflow_tests.attacks.mutations import mutated

SECONDS = 10.0
MOST_JSON = 64_000
CASES_OF_A_PROCESS = 5_000
LIMITED_AT_ONCE = 100
TIME = datetime(2026, 1, 1, tzinfo=UTC)


class TookTooLong(BaseException):
    """More processor time than an image may take."""


class NotStored(Exception):
    """What an outcome says cannot be shown or stored as it is."""


@dataclass
class Finds:
    """What became of cases.

    Attributes:
        outcomes: how many were ready, or rejected with which code.
        finds: kind to how often, and the number of the first case.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    finds: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, kind: str, number: int, count: int = 1) -> None:
        before, first = self.finds.get(kind, (0, number))
        self.finds[kind] = before + count, min(first, number)

    def merge(self, other: Finds) -> None:
        self.outcomes += other.outcomes
        for kind, (count, number) in other.finds.items():
            self.add(kind, number, count)


class _Memory:
    """A source and an output store that hold nothing."""

    def __init__(self) -> None:
        self.body = b""

    def read(self, _upload: SourceObject) -> bytes:
        return self.body

    def stream(self, _upload: SourceObject) -> Iterator[bytes]:
        for start in range(0, len(self.body), 4_096):
            yield self.body[start : start + 4_096]

    def put(self, _name: str, _body: bytes, _media_type: str) -> None:
        pass


class _Arrays:
    """Takes the chunks of an array, as they would travel to the database."""

    def store(self, image_id: int, array: str, chunks: Iterable[Any]) -> int:
        return sum(size for _, size in copy_blocks(image_id, array, chunks))


@contextmanager
def _no_database(_image: depth_images.DepthImage) -> Iterator[_Arrays]:
    yield _Arrays()


def _use_no_database() -> None:
    depth_images.DepthImage._arrays = _no_database  # type: ignore[method-assign,assignment]
    # Setting limits for each takes half of the time of all; see `_limit_time`.
    depth_images.cpu_limit = photographs.cpu_limit = lambda _seconds: nullcontext()  # type: ignore[assignment]


def _limit_time() -> None:
    """Let this process have a signal when it computes for long."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


@cache
def _worker() -> photographs.Worker:
    folder = Path(tempfile.gettempdir())
    settings = load_settings(_env_file=None, home=folder / "none")
    mine = photographs.Worker(
        WorkerConfig(
            StoreConfig((folder / "in").as_uri(), (folder / "out").as_uri()),
            "",
            f"{(folder / 'in').as_uri()}/",
            replace(settings.photo_recipe, watermark_text="proof"),
            replace(settings.photo_limits, max_memory=512 * 2**20),
            settings.depth_recipe,
            SECONDS,
            SECONDS,
            settings.depth_limits,
        )
    )
    mine.source = mine.outputs = _Memory()  # type: ignore[assignment]
    return mine


@cache
def _family(kind: str) -> Any:
    settings = load_settings(_env_file=None, home=Path(tempfile.gettempdir()) / "none")
    return next(family for family in build_families(settings) if family.kind == kind)


def _task(kind: str, key: str, body: bytes, number: int) -> Task:
    upload = SourceObject(key, f"e{number}", None, len(body), TIME)
    enabled = dict(_family(kind).outputs)
    return Task(number, upload, "run", frozenset(enabled), enabled)


def attempt(kind: str, key: str, body: bytes, number: int) -> str:
    """Process one input as a pool process does, and show it as pages and events do.

    Returns:
        `ready`, or the code with which it was rejected.
    """
    mine, task = _worker(), _task(kind, key, body, number)
    mine.source.body = body  # type: ignore[attr-defined]
    try:
        outcome = mine.photo(task) if kind == "photo" else depth_images.process_depth(mine, task)
    except Rejected as rejection:
        if len(rejection.reason) > 1_000:
            raise NotStored(f"a reason of {rejection.code} is long") from None
        return rejection.code
    verdict = outcome.verdict
    assert verdict is not None
    for name, value in _numbers({"facts": verdict.facts, "outputs": verdict.outputs}):
        if not math.isfinite(value):
            raise NotStored(f"{name} is not finite")
    if len(storable_json(verdict.outputs)) + len(storable_json(verdict.facts)) > MOST_JSON:
        raise NotStored("the row is long")
    image = _row(verdict, kind)
    list(finished_events(_family(kind), ["metadata"], [Finished(image, outcome)]))
    card_of(image, Filters())
    pictures_of(image)
    list(metadata_of(image))
    item_of(image).model_dump_json()
    return "ready"


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, dict):
        for part, inner in value.items():
            yield from _numbers(inner, f"{name}.{part}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, name)


def _row(verdict: Verdict, kind: str) -> Image:
    upload = verdict.upload
    return Image(
        id=verdict.image_id,
        source="file:///in/",
        key=upload.key,
        kind="photo" if kind == "photo" else "depth",
        state=verdict.state,
        reason=None,
        reason_code=None,
        etag=upload.etag,
        version_id=None,
        size=upload.size,
        last_modified=TIME,
        sha256=verdict.sha256,
        media_type=verdict.media_type,
        width=verdict.width,
        height=verdict.height,
        mode=verdict.mode,
        recipe=verdict.recipe,
        outputs=verdict.outputs,
        facts=verdict.facts,
        processed=upload.identity,
        run_id="run",
        announced=upload.identity,
        announced_etag=upload.etag,
        announced_version_id=None,
        announced_size=upload.size,
        announced_last_modified=TIME,
        batch=None,
        attempts=0,
        not_before=None,
        unreported=True,
        gone_at=None,
        in_partitions=True,
        created_at=TIME,
        updated_at=TIME,
    )


def _too_long(_number: int, _frame: object) -> None:
    raise TookTooLong


def _kind_of(error: BaseException) -> str:
    """An exception and where in imgflow it came from; of our own errors what they say too."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "/imgflow/" in frame.filename
    ]
    said = f" {error}" if isinstance(error, (NotStored, RuntimeWarning)) else ""
    return f"{type(error).__name__}{said} at {places[-1] if places else '?'}"


def _run_part(kind: str, seed: int, numbers: range, *, current: Any, answers: Any) -> None:
    signal.signal(signal.SIGXCPU, _too_long)
    _use_no_database()
    import imgflow.work.depth_libraries  # noqa: F401

    found = Finds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=RuntimeWarning)
        for number in numbers:
            current.value = number
            if number % LIMITED_AT_ONCE == 0:
                _limit_time()
            try:
                found.outcomes[attempt(kind, *mutated(kind, seed, number), number)] += 1
            except (Exception, SystemExit, TookTooLong) as error:
                found.add(_kind_of(error), number)
    answers.put(found)


def run(kind: str, count: int, seed: int, *, progress: bool = False) -> Finds:
    """Try so many cases, in processes of their own, since a decoder may take one with it."""
    context = multiprocessing.get_context("fork")
    total, first, began = Finds(), 0, time.monotonic()
    while first < count:
        last = min(count, first + CASES_OF_A_PROCESS)
        current, answers = context.Value("q", first), context.SimpleQueue()
        process = context.Process(
            target=_run_part,
            args=(kind, seed, range(first, last)),
            kwargs={"current": current, "answers": answers},
        )
        process.start()
        process.join()
        if process.exitcode == 0:
            total.merge(answers.get())
            first = last
        else:
            total.add(f"the process died ({process.exitcode})", current.value)
            first = current.value + 1
        if progress:
            rate = first / (time.monotonic() - began)
            say(f"{first:,} of {count:,}, {rate:,.0f} a second: {total.finds}")
    return total


def through_the_pool(kind: str, count: int, seed: int, folder: Path, database_url: str) -> Finds:
    """Put cases through real pool processes and into the database, as one batch of a run."""
    settings = load_settings(
        _env_file=None, home=folder / "home", database_url=database_url, workers=2
    )
    stores = StoreConfig(settings.source_url, settings.output_url)
    source, _ = stores.locations()
    source.folder.mkdir(parents=True)
    keys = {}
    for number in range(count):
        key, body = mutated(kind, seed, number)
        keys[f"{number}-{key}"] = number
        (source.folder / f"{number}-{key}").write_bytes(body)
    engine = make_engine(database_url)
    catalog = PostgresCatalog(engine, source.url)
    catalog.migrate()
    catalog.announce(stores.open_source().list_page(None, count + 1).objects)
    family = _family(kind)
    images = catalog.waiting(family.kind, active=[], most=count + 1)
    plan = batch.plan(images, batch.Family(family.outputs, frozenset(family.outputs)), "run")
    config = replace(_worker().config, stores=stores, database_url=database_url, source=source.url)
    found, summary = Finds(), Summary()

    def report(done: list[Finished]) -> list[Finished]:
        for one in done:
            list(finished_events(family, ["metadata"], [one]))
        return []

    with WorkerPool(config, 2) as pool:
        outcomes = pool.outcomes(
            plan.tasks,
            family.work,
            config.seconds_of,
            together=group_size(stores) if family.is_quick else 1,
        )
        batch.run_tasks(
            images,
            _watched(outcomes, keys, found),
            catalog,
            open_outputs=stores.open_outputs,
            report=report,
            summary=summary,
        )
    for image in catalog.by_keys(list(keys)).values():
        found.outcomes[image.reason_code or image.state] += 1
        if image.state == "pending" or image.reason_code in ("failed", "crashed"):
            found.add(f"{image.state} {image.reason_code}: {image.reason}", keys[image.key])
    engine.dispose()
    return found


def _watched(
    outcomes: Iterator[tuple[Task, Outcome]], keys: dict[str, int], found: Finds
) -> Iterator[tuple[Task, Outcome]]:
    for task, outcome in outcomes:
        if outcome.failure is not None:
            found.add(outcome.failure.reason, keys[task.upload.key])
        yield task, outcome


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Fuzz, and exit with 1 when there were finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["depth", "photo"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pool", type=int, default=0, help="cases through pool and database")
    parser.add_argument("--only", type=int, help="the number of one case, whose error is shown")
    asked = parser.parse_args()
    if asked.only is not None:
        _use_no_database()
        key, body = mutated(asked.kind, asked.seed, asked.only)
        say(f"{key!r}, {len(body)} bytes: {body[:300]!r}")
        say(attempt(asked.kind, key, body, asked.only))
        return
    if asked.pool:
        with tempfile.TemporaryDirectory() as name:
            server = EmbeddedPostgres(Path(name) / "pg")
            try:
                total = through_the_pool(
                    asked.kind, asked.pool, asked.seed, Path(name) / "work", server.url
                )
            finally:
                server.close()
    else:
        total = run(asked.kind, asked.count, asked.seed, progress=True)
    for outcome, count in total.outcomes.most_common():
        say(f"{count:>9,}  {outcome}")
    for kind, (count, number) in sorted(total.finds.items()):
        say(f"FIND {count:,} times, first case {number}: {kind}")
    sys.exit(bool(total.finds))


if __name__ == "__main__":
    main()
