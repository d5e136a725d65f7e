"""A worker reads ahead and writes behind, within bounds; no image suffers from another's bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from imgflow.errors import SourceChanged, Trouble
from imgflow.images.formats.decoding import Limits
from imgflow.store.objects import SourceObject
from imgflow.work import photographs as worker_module
from imgflow.work.photographs import Worker, process_photo_task
from imgflow.work.tasks import Task, WorkerConfig
from imgflow.work.transfers import MOST_BYTES, Transfers
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
OUTPUTS = {"grayscale": "f" * 16, "thumbnail": "e" * 16}


def upload(key: str, size: int = 100) -> SourceObject:
    return SourceObject(key, "e", None, size, MOMENT)


class Store:
    """Both stores in memory; what it is asked for is recorded, and may be held up."""

    def __init__(self) -> None:
        self.read_keys: list[str] = []
        self.written: dict[str, bytes] = {}
        self.asked = threading.Semaphore(0)
        self.before: Callable[[str], None] = lambda _name: None

    def read(self, upload: SourceObject) -> bytes:
        self.read_keys.append(upload.key)
        self.asked.release()
        self.before(upload.key)
        return upload.key.encode()

    def put(self, name: str, body: bytes, _media_type: str) -> None:
        self.before(name)
        self.written[name] = body


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def transfers(store: Store) -> Transfers:
    anything: Any = store
    return Transfers(anything, anything)


def test_bodies_are_read_before_they_are_asked_for(store: Store, transfers: Transfers) -> None:
    transfers.expect(map(upload, "abc"))
    for _ in range(3):
        assert store.asked.acquire(timeout=PATIENCE_SECONDS)
    assert [transfers.read(upload(key)) for key in "abc"] == [b"a", b"b", b"c"]
    assert sorted(store.read_keys) == ["a", "b", "c"]


def test_what_is_read_ahead_has_a_bound(store: Store, transfers: Transfers) -> None:
    quarter = MOST_BYTES // 4
    uploads = [upload(str(number), quarter) for number in range(10)]
    transfers.expect(uploads)
    for _ in range(4):
        assert store.asked.acquire(timeout=PATIENCE_SECONDS)
    assert len(store.read_keys) == 4
    transfers.read(uploads[0])
    assert store.asked.acquire(timeout=PATIENCE_SECONDS)
    assert len(store.read_keys) == 5


def test_one_upload_beyond_the_bound_is_read_alone(store: Store, transfers: Transfers) -> None:
    uploads = [upload("huge", MOST_BYTES + 1), upload("small")]
    transfers.expect(uploads)
    assert transfers.read(uploads[0]) == b"huge"
    assert transfers.read(uploads[1]) == b"small"
    assert store.read_keys == ["huge", "small"]


def test_what_waits_to_be_written_has_a_bound(store: Store, transfers: Transfers) -> None:
    gate = threading.Event()
    store.before = lambda _name: gate.wait(10) and None
    half = bytes(MOST_BYTES // 2)
    first, second = (transfers.put(name, half, "image/png") for name in "ab")
    third: list[Any] = []
    writer = threading.Thread(target=lambda: third.append(transfers.put("c", half, "image/png")))
    writer.start()
    writer.join(0.1)
    assert writer.is_alive(), "a third half was taken into memory"
    gate.set()
    writer.join(10)
    assert [future.result(10) for future in (first, second, *third)] == [None] * 3
    assert set(store.written) == {"a", "b", "c"}


@pytest.fixture
def worker(worker_config: WorkerConfig, monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker(worker_config)
    monkeypatch.setattr(worker_module, "this_worker", lambda: worker)
    return worker


def tasks(worker: Worker, *keys: str) -> list[Task]:
    found = []
    for number, key in enumerate(keys):
        (worker.source.location.folder / key).write_bytes(jpeg(seed=number))
        announced = worker.source.stat(key)
        assert announced is not None
        found.append(Task(number, announced, "r", frozenset(OUTPUTS), OUTPUTS))
    return found


def test_a_write_that_fails_is_the_trouble_of_its_image_only(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = worker.outputs.put

    def failing(name: str, body: bytes, media_type: str) -> None:
        if name.startswith("thumbnail/") and "/b.jpg/" in name:
            raise Trouble("the store is full")
        put(name, body, media_type)

    monkeypatch.setattr(worker.outputs, "put", failing)
    a, b, c = worker.overlapping(tasks(worker, "a.jpg", "b.jpg", "c.jpg"), process_photo_task)
    assert (b.verdict, b.trouble) == (None, "the store is full")
    for outcome in (a, c):
        assert outcome.verdict is not None
        assert outcome.verdict.state == "ready"
        for record in outcome.verdict.outputs.values():
            assert worker.outputs.exists(record["name"])


def test_an_upload_that_changes_while_it_is_read_ahead_is_outdated_and_no_other(
    worker: Worker,
) -> None:
    group = tasks(worker, "a.jpg", "b.jpg")
    (worker.source.location.folder / "b.jpg").write_bytes(jpeg(seed=9))
    a, b = worker.overlapping(group, process_photo_task)
    assert a.verdict is not None
    assert (b.verdict, b.is_outdated, b.trouble_code) == (None, True, SourceChanged.code)


def test_a_file_beyond_the_limit_is_not_read_ahead(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tasks(worker, "a.jpg", "b.jpg")
    large = group[1].upload.size
    limits = Limits(max_bytes=large - 1)
    monkeypatch.setattr(worker, "config", replace(worker.config, photo_limits=limits))
    read = worker.source.read
    seen: list[str] = []
    monkeypatch.setattr(worker.source, "read", lambda up: (seen.append(up.key), read(up))[1])
    outcomes = worker.overlapping(group, process_photo_task)
    codes = [outcome.verdict and outcome.verdict.reason_code for outcome in outcomes]
    sizes = [task.upload.size for task in group]
    assert codes == ["too_many_bytes" if size >= large else None for size in sizes]
    assert seen == [task.upload.key for task in group if task.upload.size < large]
