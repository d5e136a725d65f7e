"""What a pool process does with one photograph: read, process, write, return a small record.

It also holds what every worker needs: its start, its stores, and turning exceptions into outcomes.
It imports neither Dagster nor anything else that the work does not need, since every worker of
every run pays for it. Image bytes never leave the process; an answer takes about one kilobyte.
The processes themselves are in `pool`, depth images in `depth_images`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from imgflow.catalog.records import Content
from imgflow.errors import OutputFailed, Rejected, SourceChanged, Trouble, Withheld
from imgflow.images.formats.decoding import prepare_decoder
from imgflow.images.outputs import find_output, process_photo
from imgflow.store.naming import output_name
from imgflow.store.objects import SourceObject
from imgflow.work.task_failures import expected, outside, packed, unexpected
from imgflow.work.tasks import (
    Outcome,
    OutputRecord,
    Task,
    WorkerConfig,
    aws_variables,
    described,
    known_content,
    own_metadata,
    ready,
    rejected,
    what_to_make,
    withheld,
)
from imgflow.work.transfers import BESIDE_BYTES, Transfers
from imgflow.work.worker_limits import cpu_limit, memory_limit

if TYPE_CHECKING:
    from imgflow.images.encoding import Encoded
    from imgflow.store.objects import Source
    from imgflow.store.output_store import OutputStore


class Stopwatch:
    """Measures how many milliseconds each step takes."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = round((time.perf_counter() - began) * 1000, 2)


class Worker:
    """The stores and recipes of one pool process."""

    def __init__(self, config: WorkerConfig) -> None:
        """Open the stores; only after the process has started, since `obstore` runs threads."""
        self.config = config
        self.source: Source = config.stores.open_source()
        self.outputs: OutputStore = config.stores.open_outputs()
        self._threads: Transfers | None = None
        self._transfers: Transfers | None = None  # while tasks overlap
        self._unwritten: list[Future[None]] = []

    def overlapping(self, tasks: Sequence[Task], work: Callable[[Task], Outcome]) -> list[Outcome]:
        """Process photographs in turn, while the next are read and the previous are written.

        An outcome is returned only once every output it names is written.
        """
        if self._threads is None:
            self._threads = Transfers(self.source, self.outputs)
        self._transfers = self._threads
        most = self.config.photo_limits.max_bytes
        self._transfers.expect(task.upload for task in tasks if task.upload.size <= most)
        answers = []
        try:
            for task in tasks:
                outcome = answered(task, work)
                answers.append((task, outcome, self._unwritten))
                self._unwritten = []
            return [answered(task, partial(_written, outcome, w)) for task, outcome, w in answers]
        finally:
            self._transfers.end()
            self._transfers = None

    def photo(self, task: Task) -> Outcome:
        """Process one photograph; if its bytes are known, make only the outputs that it lacks."""
        watch = Stopwatch()
        with watch.step("read"):
            self._refuse_size(task.upload, self.config.photo_limits.max_bytes)
            with outside("the source could not be read"):
                body = (self._transfers or self.source).read(task.upload)
        sha256 = hashlib.sha256(body).hexdigest()
        wanted, kept = what_to_make(task, sha256)
        content = known_content(task, sha256)
        made: dict[str, OutputRecord] = {}
        pictures: dict[str, str] = {}
        if content is not None and content is not task.own:
            with watch.step("copy"):
                made = self.copies(task, content)
            wanted -= made.keys()
        if wanted or content is None:
            prepare_decoder(body, self.config.photo_limits)
            with (
                watch.step("process"),
                cpu_limit(self.config.decode_seconds),
                memory_limit(
                    self.config.photo_limits.max_memory,
                    beside=BESIDE_BYTES if self._transfers else 0,
                ),
            ):
                _check_installed(wanted)
                done = process_photo(
                    body, self.config.photo_recipe, self.config.photo_limits, sorted(wanted)
                )
            with watch.step("write"):
                for name, encoded in done.outputs.items():
                    made[name] = self.write(task, name, sha256, encoded)
                    pictures[name] = encoded.picture
            content = described(task, sha256, done.facts)
        verdict = ready(task, content, {**kept, **made})
        if pictures:
            pictures["metadata"] = pictures.get("thumbnail", "") or next(iter(pictures.values()))
        return Outcome(
            verdict,
            made=tuple(made),
            bytes_read=len(body),
            milliseconds=watch.milliseconds,
            pictures=pictures,
        )

    def copies(self, task: Task, twin: Content) -> dict[str, OutputRecord]:
        """Copy outputs from an image with the same bytes, where their recipe is the current one."""
        made: dict[str, OutputRecord] = {}
        for name, fingerprint in task.enabled.items():
            record = twin.outputs.get(name)
            if record is None or record["fingerprint"] != fingerprint:
                continue
            extension = PurePosixPath(record["name"]).suffix
            path = self.name(task, name, twin.sha256, extension)
            with outside("an output could not be copied"):
                is_copied = self.outputs.copy(record["name"], path)
            if is_copied:
                made[name] = {**record, "name": path}
        return made

    def name(self, task: Task, output: str, sha256: str, extension: str) -> str:
        """The immutable name of an output, made from content and recipe."""
        fingerprint = f"{sha256}/{task.enabled[output]}"
        return output_name(output, self.config.source, task.upload.key, fingerprint, extension)

    def write(self, task: Task, name: str, sha256: str, encoded: Encoded) -> OutputRecord:
        """Store an output under its immutable name, and return its record for the row."""
        fingerprint = task.enabled[name]
        metadata = own_metadata(name, encoded.metadata)
        path = self.name(task, name, sha256, encoded.extension)
        if self._transfers is None:
            with outside("an output could not be written"):
                self.outputs.put(path, encoded.data, encoded.media_type)
        else:
            written = self._transfers.put(path, encoded.data, encoded.media_type)
            self._unwritten.append(written)
        return {
            "name": path,
            "fingerprint": fingerprint,
            "media_type": encoded.media_type,
            "size": len(encoded.data),
            "width": encoded.width,
            "height": encoded.height,
            "sha256": hashlib.sha256(encoded.data).hexdigest(),
            **({"metadata": metadata} if metadata else {}),
        }

    @staticmethod
    def _refuse_size(upload: SourceObject, most: int) -> None:
        if upload.size > most:
            raise Rejected(
                "too_many_bytes",
                f"the file has {upload.size:,} bytes, more than the {most:,} that are allowed",
            )


_config: list[WorkerConfig] = []
"""The configuration this pool process was started with.

A pool cannot pass an object from its initialiser to tasks.
"""


def start_worker(config: WorkerConfig) -> None:
    """Initialise a pool process."""
    for name in aws_variables():
        del os.environ[name]
    os.environ.update(config.variables)
    _config[:] = [config]


@cache
def this_worker() -> Worker:
    """The one worker of this process.

    Its first task opens it, not the start of the process: if a store does not answer, only that
    task is in trouble, and the next one tries again.
    """
    with outside("the stores could not be opened"):
        return Worker(_config[0])


def work_through(work: Callable[[Task], Outcome], tasks: Sequence[Task]) -> list[bytes]:
    """Do the tasks that a pool process received as one group, in order.

    Nothing runs beside a task that is alone in its group: if the process dies, that task caused it.

    Returns:
        One outcome per task, each pickled separately, so that one that cannot be pickled spoils
        neither the others nor the pool's own messages.
    """
    return [
        packed(task, outcome) for task, outcome in zip(tasks, _outcomes(work, tasks), strict=True)
    ]


def _outcomes(work: Callable[[Task], Outcome], tasks: Sequence[Task]) -> list[Outcome]:
    if len(tasks) > 1 and work is process_photo_task and _config[0].stores.is_remote:
        try:
            worker = this_worker()
        except Trouble:
            pass  # each task runs into it again and reports it
        else:
            return worker.overlapping(tasks, work)
    return [answered(task, work) for task in tasks]


def _check_installed(outputs: Iterable[str]) -> None:
    """Raise `OutputFailed` if the package of an output is not installed in this process."""
    for name in outputs:
        try:
            find_output(name)
        except KeyError as error:
            raise OutputFailed(
                f"The output {name!r} is not installed where workers run."
            ) from error


def _written(outcome: Outcome, writes: Sequence[Future[None]], _task: Task) -> Outcome:
    for write in writes:
        with outside("an output could not be written"):
            write.result()
    return outcome


def process_photo_task(task: Task) -> Outcome:
    """Process a photograph in a pool process; never raises."""
    return answered(task, lambda task: this_worker().photo(task))


def answered(task: Task, work: Callable[[Task], Outcome]) -> Outcome:
    """Turn whatever is raised into an outcome, with its start time and process id."""
    began = time.time()
    outcome = _outcome(task, work)
    # Where tasks overlap, the second call only waits for writes; the first call set the time.
    if outcome.began:
        return outcome
    return replace(outcome, began=began, worker=os.getpid())


def _outcome(task: Task, work: Callable[[Task], Outcome]) -> Outcome:
    try:
        return expected(work(task))
    except Withheld as rejection:
        return Outcome(withheld(task, rejection))
    except Rejected as rejection:
        return Outcome(rejected(task, rejection.code, rejection.reason))
    except Trouble as trouble:
        return Outcome(
            trouble=str(trouble),
            trouble_code=trouble.code,
            is_outdated=isinstance(trouble, SourceChanged),
        )
    # Decoders, readers and outputs of other packages may raise anything, even SystemExit. Ctrl-C
    # does not reach pool processes.
    except BaseException as error:
        return unexpected(task, error)
