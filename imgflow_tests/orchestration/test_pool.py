"""One image's misfortune costs that image only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from imgflow.catalog.records import Verdict
from imgflow.store.objects import SourceObject
from imgflow.work.pool import WorkerPool, _groups
from imgflow.work.tasks import Outcome, Task, WorkerConfig
from imgflow.work.worker_limits import cpu_limit

CPU_SECONDS = 1.0


def done(task: Task) -> Outcome:
    return Outcome(
        Verdict(image_id=task.image_id, upload=task.upload, state="ready", run_id="r", recipe="x")
    )


def misbehave(task: Task) -> Outcome:
    """What the decoder does with an image, by its key."""
    key = task.upload.key
    if key == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if key == "exit":
        os._exit(3)
    if key == "loop":
        with cpu_limit(CPU_SECONDS):
            while True:
                pass
    if key == "hang":
        time.sleep(600)
    if key.startswith("/"):  # killed by somebody, the first time
        marker = Path(key)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return done(task)


def slow(task: Task) -> Outcome:
    time.sleep(0.01)
    return done(task)


def tell_process(task: Task) -> Outcome:
    time.sleep(0.01)
    return replace(done(task), bytes_read=os.getpid())


@pytest.fixture
def pool(worker_config: WorkerConfig) -> Iterator[WorkerPool]:
    config = replace(worker_config, decode_seconds=CPU_SECONDS, depth_seconds=CPU_SECONDS)
    with WorkerPool(config, 2) as pool:
        yield pool


def tasks(*keys: str) -> list[Task]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Task(
            image_id=number,
            upload=SourceObject(key, "e", None, 1, moment),
            run_id="r",
            wanted=frozenset(),
            enabled={},
        )
        for number, key in enumerate(keys)
    ]


@pytest.mark.parametrize("together", [1, 8])
def test_images_that_kill_their_worker_are_rejected_and_the_others_are_done(
    pool: WorkerPool, tmp_path: Path, together: int
) -> None:
    killed_once = str(tmp_path / "killed-once")
    keys = [*(f"good{n}" for n in range(30)), "segfault", killed_once, "loop", "exit", "good30"]
    outcomes = {
        task.upload.key: outcome.verdict
        for task, outcome in pool.outcomes(tasks(*keys), misbehave, CPU_SECONDS, together=together)
    }
    rejected = {
        key: (verdict.reason_code, verdict.reason)
        for key, verdict in outcomes.items()
        if verdict is not None and verdict.state == "rejected"
    }
    assert set(outcomes) == set(keys)
    assert {key: code for key, (code, _) in rejected.items()} == {
        "segfault": "crashed",
        "exit": "crashed",
        "loop": "too_slow",
    }
    assert "SIGSEGV" in str(rejected["segfault"][1])
    assert "1 seconds of processor time" in str(rejected["loop"][1])


@pytest.mark.parametrize("together", [1, 8])
def test_an_image_that_hangs_keeps_only_itself_waiting(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr("imgflow.work.pool.GRACE_SECONDS", 2)
    keys = [*(f"good{n}" for n in range(20)), "hang", *(f"good{n}" for n in range(20, 40))]
    outcomes = {
        task.upload.key: outcome
        for task, outcome in pool.outcomes(tasks(*keys), misbehave, 0.1, together=together)
    }
    assert set(outcomes) == set(keys)
    assert [key for key, outcome in outcomes.items() if outcome.trouble] == ["hang"]


def test_a_batch_of_any_size_holds_few_tasks_at_once(pool: WorkerPool) -> None:
    taken = 0

    def endless() -> Iterator[Task]:
        nonlocal taken
        for task in tasks(*map(str, range(10_000))):
            taken += 1
            yield task

    outcomes = pool.outcomes(endless(), slow, CPU_SECONDS)
    for _ in range(20):
        next(outcomes)
    assert taken < 200


def test_workers_get_the_last_images_in_smaller_groups() -> None:
    sizes = [len(group) for group in _groups(tasks(*map(str, range(100))), 8, 2)]
    assert sum(sizes) == 100
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-4:]) == (8, [1, 1, 1, 1])


def test_no_worker_is_left_when_the_pool_ends_in_the_middle(pool: WorkerPool) -> None:
    outcomes = pool.outcomes(tasks(*map(str, range(300))), tell_process, CPU_SECONDS)
    told = {next(outcomes)[1].bytes_read for _ in range(100)}
    workers = [psutil.Process(pid) for pid in told]
    assert len(workers) == 2
    pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert len(gone) == 2


def test_a_folder_for_temporary_files_without_room_for_a_socket_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    code = (
        "from imgflow.work.pool import prepare_workers\n"
        "from imgflow.store.config import StoreConfig\n"
        "prepare_workers(StoreConfig('file:///in', 'file:///out'))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode
    assert f"temporary files, {folder}, has too long a path" in ended.stderr
    assert "Set TMPDIR" in ended.stderr


@pytest.mark.parametrize(("kinds", "expected"), [(["photo"], []), (["depth"], ["pandas", "scipy"])])
def test_what_a_kind_of_images_needs_is_imported_once_for_all_its_workers(
    kinds: list[str], expected: list[str]
) -> None:
    code = (
        "import sys\n"
        "from imgflow.work.pool import CONTEXT, prepare_workers\n"
        "from imgflow.store.config import StoreConfig\n"
        "prepare_workers(StoreConfig('file:///in', 'file:///out'), sys.argv[1:])\n"
        "with CONTEXT.Pool(1) as pool:\n"
        "    loaded = pool.apply(eval, ['set(__import__(\"sys\").modules)'])\n"
        "print(sorted({'pandas', 'scipy'} & loaded))\n"
    )
    command = [sys.executable, "-c", code, *kinds]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(expected)
