"""A pool of worker processes in which a crash, hang or error costs only the image that caused it.

What a worker does with an image is in `photographs` and `depth_images`.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from types import TracebackType

from pebble import CONSTS, ProcessExpired, ProcessPool
from pebble.common.types import Result, ResultStatus

from imgflow.errors import ImgflowError
from imgflow.store.config import StoreConfig
from imgflow.work.photographs import answered, start_worker, this_worker, work_through
from imgflow.work.task_failures import as_rejection, unexpected, unpacked
from imgflow.work.tasks import Failure, Outcome, Task, WorkerConfig, rejected

logger = logging.getLogger(__name__)

# Tasks queued for each worker: enough to keep it busy while a flush is written, few enough to keep
# memory flat whatever the size of the batch.
WINDOW = 64

# A worker that neither computes nor answers for this long is stuck in the store or the database.
GRACE_SECONDS = 300

# After this long without a finished task, look for lost tasks.
LOOK_SECONDS = 2.0

# A task whose worker dies is retried once in a fresh one: somebody may have killed the worker, not
# the image.
TRIES = 2

# How often Pebble polls its workers. Its default of 0.1 s is added to the end of each run.
CONSTS.sleep_unit = 0.02

# Not `fork`: obstore and psycopg2 run threads in this process.
CONTEXT = multiprocessing.get_context("forkserver")

# Imported once, in the server that workers are forked from. Every worker's configuration contains
# the recipe of depth images; numpy takes 40 MB, which would count against an image's limit.
PRELOADED = (
    *("imgflow.work.photographs", "imgflow.depth.depth_recipe", "pebble.pool.process", "numpy"),
    *("PIL.JpegImagePlugin", "PIL.PpmImagePlugin"),
)
PRELOADED_FOR: Mapping[str, Sequence[str]] = {
    "depth": ("imgflow.work.depth_images", "imgflow.work.depth_libraries"),
}


# Quick tasks that a worker gets at once. With a bucket, it computes one while it reads the next and
# writes the previous, so it waits only for the first read and the last write of a group.
GROUP, REMOTE_GROUP = 8, 32


def group_size(stores: StoreConfig) -> int:
    """The maximum number of quick tasks that a worker gets at once."""
    return REMOTE_GROUP if stores.is_remote else GROUP


def prepare_workers(stores: StoreConfig, kinds: Iterable[str] = ()) -> None:
    """Start the server that workers are forked from; it imports while this process continues.

    Args:
        stores: A bucket among them has its modules imported as well.
        kinds: Families of images to be processed, if known. What they need is then imported once
            in the server instead of once in each worker.

    Raises:
        ImgflowError: The path of the folder for temporary files is too long.
    """
    preloaded = [*PRELOADED, *(name for kind in kinds for name in PRELOADED_FOR.get(kind, ()))]
    if stores.is_remote:
        preloaded.append("imgflow.store.s3.source_bucket")
    CONTEXT.set_forkserver_preload(preloaded)
    # Every core has a worker already, and OpenBLAS threads take memory that counts for the limit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        multiprocessing.forkserver.ensure_running()
    except OSError as error:
        if str(error) != "AF_UNIX path too long":
            raise
        raise ImgflowError(
            f"Workers cannot be started: the folder for temporary files, {tempfile.gettempdir()}, "
            "has too long a path for their sockets. Set TMPDIR to one of at most 70 bytes, /tmp "
            "for example."
        ) from None


class WorkerPool:
    """Worker processes that live as long as the `with` block."""

    def __init__(self, config: WorkerConfig, workers: int) -> None:
        """Prepare the pool; its processes start with the first task."""
        prepare_workers(config.stores)
        self._workers = workers
        self._pool = ProcessPool(
            max_workers=workers, context=CONTEXT, initializer=start_worker, initargs=[config]
        )

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def stop(self) -> None:
        """End the workers at once, whatever they are doing."""
        self._pool.stop()
        self._pool.join()

    def _end_lost_tasks(self) -> None:
        """End the tasks whose worker no longer exists.

        Pebble normally does this, but not when a worker dies so soon that its death is noticed
        before the message that it took the task. Such a task would run into its timeout.
        """
        manager = self._pool._pool_manager
        for task in list(manager.task_manager.tasks.values()):
            if task.worker_id and task.worker_id not in manager.worker_manager.workers:
                death = ProcessExpired("Abnormal termination", code=None, pid=task.worker_id)
                manager.task_manager.task_done(task.id, Result(ResultStatus.ERROR, death))

    def outcomes(
        self,
        tasks: Iterable[Task],
        work: Callable[[Task], Outcome],
        seconds: float | Callable[[Task], float],
        *,
        together: int = 1,
    ) -> Iterator[tuple[Task, Outcome]]:
        """Process tasks and yield them as they finish, in any order.

        Args:
            tasks: Consumed lazily, as workers become free.
            work: A module-level function. Whatever it raises becomes the outcome of that task.
            seconds: Processor time that `work` allows an image, in seconds: one number or a
                function of the task. It sets the timeout and is quoted in rejections; `work`
                enforces it.
            together: Maximum number of tasks that a worker gets at once, so that it can read ahead
                and fewer messages are sent. If one crashes the worker, each of the group is retried
                alone. One that fails is also retried alone before its failure counts.
        """
        waiting = _groups(tasks, together, self._workers)
        running: dict[Future[list[bytes]], tuple[list[Task], int]] = {}

        def seconds_of(task: Task) -> float:
            return seconds(task) if callable(seconds) else seconds

        def submit(group: list[Task], attempt: int) -> None:
            timeout = sum(map(seconds_of, group)) + GRACE_SECONDS
            future = self._pool.schedule(work_through, args=[work, group], timeout=timeout)
            running[future] = (group, attempt)

        while True:
            handed_over = sum(len(group) for group, _ in running.values())
            while handed_over < self._workers * WINDOW and (group := next(waiting, None)):
                submit(group, 1)
                handed_over += len(group)
            if not running:
                return
            done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if not done:
                self._end_lost_tasks()
            for future in done:
                ended, again = _ended(future, *running.pop(future), seconds_of)
                for group, attempt in again:
                    submit(group, attempt)
                yield from ended


def _ended(
    future: Future[list[bytes]],
    group: list[Task],
    attempt: int,
    seconds_of: Callable[[Task], float],
) -> tuple[list[tuple[Task, Outcome]], list[tuple[list[Task], int]]]:
    """The outcomes of a finished group, and the groups to retry, each with its attempt number."""
    try:
        answers = _answers(group, future)
    except ProcessExpired as death:
        if len(group) > 1:
            return [], [([task], 1) for task in group]
        if _deserves_another_try(death, attempt):
            return [], [(group, attempt + 1)]
        return [(group[0], _meaning(death, group[0], seconds_of(group[0])))], []
    except FutureTimeout:
        if len(group) > 1:  # which of them hangs is unknown
            return [], [([task], 1) for task in group]
        return [(group[0], _stuck(group[0]))], []
    ended: list[tuple[Task, Outcome]] = []
    again: list[tuple[list[Task], int]] = []
    for task, outcome in zip(group, answers, strict=True):
        is_failed = outcome.failure is not None and outcome.trouble is None
        if is_failed and len(group) > 1:
            again.append(([task], 1))
            continue
        if outcome.failure is not None:
            _log(task, outcome.failure)
        ended.append((task, as_rejection(task, outcome) if is_failed else outcome))
    return ended, again


def _answers(group: list[Task], future: Future[list[bytes]]) -> list[Outcome]:
    """The outcomes of a group; raises only if its worker, or the pool, is gone."""
    try:
        answers = future.result()
        return [unpacked(task, answer) for task, answer in zip(group, answers, strict=True)]
    except (ProcessExpired, FutureTimeout, BrokenProcessPool, CancelledError):
        raise
    except (Exception, SystemExit) as error:  # for example, a task that cannot be pickled
        return [unexpected(task, error) for task in group]


def _log(task: Task, failure: Failure) -> None:
    logger.error(
        "run %s, image %r: %s\n%s", task.run_id, task.upload.key, failure.reason, failure.trace
    )


def _groups(tasks: Iterable[Task], together: int, workers: int) -> Iterator[list[Task]]:
    """Group tasks; groups get smaller towards the end, so that no worker finishes late."""
    left = len(tasks) if isinstance(tasks, Sized) else None
    waiting = iter(tasks)
    size = together
    while True:
        if left is not None:
            size = min(together, max(1, left // (2 * workers)))
            left -= size
        group = list(islice(waiting, size))
        if not group:
            return
        yield group


def _deserves_another_try(death: ProcessExpired, attempt: int) -> bool:
    return death.exitcode != -signal.SIGXCPU and attempt < TRIES


def _meaning(death: ProcessExpired, task: Task, seconds: float) -> Outcome:
    """The outcome of a task that was alone with its worker when it died."""
    if death.exitcode == -signal.SIGXCPU:
        return Outcome(
            rejected(
                task,
                "too_slow",
                f"processing took more than the {seconds:g} seconds of processor time that are "
                "allowed",
            )
        )
    return Outcome(
        rejected(
            task,
            "crashed",
            f"the decoder crashed on it, {TRIES} times ({_cause(death.exitcode)})",
        )
    )


def _stuck(task: Task) -> Outcome:
    return Outcome(
        trouble=f"{task.upload.key!r}: the worker neither computed nor answered for "
        f"{GRACE_SECONDS} seconds and was replaced"
    )


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit code {exitcode}"


def process_depth_task(task: Task) -> Outcome:
    """Process a depth image in a pool process; never raises."""
    # Not at the top: workers of photographs need nothing that it imports.
    from imgflow.work.depth_images import process_depth

    return answered(task, lambda task: process_depth(this_worker(), task))
