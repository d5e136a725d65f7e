"""Who has which images in hand, and what is left when a process dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres import run_locks as holds_module
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow_tests.catalog.uploads import announced, row, verdict


@pytest.fixture(autouse=True)
def server_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is judged right after the start of the server, which here has just been."""
    monkeypatch.setattr(holds_module, "SETTLE_SECONDS", 0)


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def left_behind(catalog: PostgresCatalog, *run_ids: str) -> None:
    """As the sensor does with runs whose process is not there any more."""
    assert [hold.run_id for hold in catalog.holds.abandoned()] == list(run_ids)
    catalog.holds.take_up(run_ids)


def test_a_run_that_ended_leaves_nothing_behind(catalog: PostgresCatalog) -> None:
    (image,) = announced(catalog, "a.jpg")
    with catalog.holds.holding("batch"):
        catalog.holds.begin("run", "batch", "photo", [image.id])
        catalog.record([verdict(image)])
        catalog.holds.end("run", images=1, size=10)
    assert catalog.holds.abandoned() == []
    assert not row(catalog, "a.jpg").unreported


def test_a_run_is_not_abandoned_while_its_process_lives(catalog: PostgresCatalog) -> None:
    with catalog.holds.holding("batch"):
        catalog.holds.begin("run", "batch", "photo", [])
        assert catalog.holds.abandoned() == []
    assert [hold.run_id for hold in catalog.holds.abandoned()] == ["run"]


def test_ready_images_of_an_abandoned_run_are_unreported_and_wait(catalog: PostgresCatalog) -> None:
    ready, rejected, pending = announced(catalog, "a.jpg", "b.jpg", "c.jpg")
    catalog.holds.begin("run", "batch", "photo", [ready.id, rejected.id, pending.id])
    catalog.record([verdict(ready), verdict(rejected, "rejected", reason="no")])

    left_behind(catalog, "run")

    assert {image.key: (image.state, image.unreported) for image in catalog.page(limit=9)} == {
        "a.jpg": ("ready", True),
        "b.jpg": ("rejected", False),
        "c.jpg": ("pending", False),
    }
    waiting = catalog.waiting("photo", active=[], most=9)
    assert [image.key for image in waiting] == ["a.jpg", "c.jpg"]
    left_behind(catalog)


def test_an_unreported_image_waits_until_it_is_reported_and_its_row_stays(
    catalog: PostgresCatalog,
) -> None:
    (image,) = announced(catalog, "a.jpg")
    catalog.holds.begin("run", "batch", "photo", [image.id])
    catalog.record([verdict(image)])
    before = row(catalog, "a.jpg")
    left_behind(catalog, "run")

    assert catalog.assign([image.id], "second", active=[]) == [image.id]
    assert catalog.assign([image.id], "third", active=["second"]) == []
    assert catalog.untouchable("photo", active=["second"]) == ["a.jpg"]
    catalog.reported([image.id])

    assert catalog.waiting("photo", active=[], most=9) == []
    assert row(catalog, "a.jpg") == before.__class__(**{**vars(before), "in_partitions": True})


def test_runs_of_other_sources_are_not_looked_at(catalog: PostgresCatalog) -> None:
    other = PostgresCatalog(catalog.engine, "file:///other/")
    other.holds.begin("run", "batch", "photo", [])
    assert catalog.holds.abandoned() == []
    assert len(other.holds.abandoned()) == 1


def test_a_lock_that_the_database_lost_is_taken_again(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "RENEW_SECONDS", 0.05)
    with catalog.holds.holding("batch"):
        assert catalog.holds.is_held("batch")
        with catalog.engine.begin() as connection:
            ended = connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = "
                    "'advisory' AND granted AND pid <> pg_backend_pid() AND database = "
                    "(SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            ).all()
        assert len(ended) == 1
        assert until(lambda: catalog.holds.is_held("batch"))
    assert until(lambda: not catalog.holds.is_held("batch"))


def test_right_after_a_restart_of_the_server_nobody_is_judged(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.holds.begin("run", "batch", "photo", [])
    assert not catalog.holds.is_settling()
    monkeypatch.setattr(holds_module, "SETTLE_SECONDS", 3_600)
    assert catalog.holds.abandoned() == []
    assert catalog.holds.is_settling()


@pytest.fixture
def ended(catalog: PostgresCatalog) -> Iterator[Callable[..., None]]:
    def add(name: str, *, images: int, size: int, seconds: float, kind: str = "photo") -> None:
        catalog.holds.begin(name, name, kind, [])  # type: ignore[arg-type]
        catalog.holds.end(name, images=images, size=size)
        with catalog.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "UPDATE run_holds SET began_at = ended_at - :seconds * interval '1 second' "
                    "WHERE run_id = :name"
                ),
                {"seconds": seconds, "name": name},
            )

    return add


def test_the_pace_is_that_of_the_newest_runs(
    catalog: PostgresCatalog, ended: Callable[..., None]
) -> None:
    assert catalog.holds.pace("photo") is None
    ended("slow", images=100, size=1_000, seconds=1_000)
    for number in range(5):
        ended(f"run{number}", images=1_000, size=2_000_000, seconds=10)
    pace = catalog.holds.pace("photo")
    assert pace is not None
    assert (pace.images_per_second, pace.bytes_per_second) == pytest.approx((100, 200_000))
    assert pace.seconds(2_000) == pytest.approx(0.01), "an image of the usual size"
    assert pace.seconds(2_000_000) == pytest.approx(5.005), "a large one costs by its bytes"
    assert catalog.holds.pace("depth") is None


def test_a_run_of_a_few_images_says_nothing_of_the_pace(
    catalog: PostgresCatalog, ended: Callable[..., None]
) -> None:
    ended("one", images=1, size=10, seconds=1.5)
    ended("one on a busy machine", images=1, size=10, seconds=8)
    assert catalog.holds.pace("photo") is None
    ended("a huge one", images=1, size=10**9, seconds=50, kind="depth")
    assert catalog.holds.pace("depth") is not None


def test_runs_of_long_ago_are_forgotten(
    catalog: PostgresCatalog, ended: Callable[..., None]
) -> None:
    ended("old", images=100, size=100, seconds=10)
    ended("new", images=100, size=100, seconds=10)
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE run_holds SET ended_at = now() - interval '31 days' WHERE run_id = 'old'"
        )
    catalog.holds.forget()
    assert set(catalog.holds.of_runs(["old", "new"])) == {"new"}
