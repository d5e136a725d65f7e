"""A tick that finds nothing goes on looking until the next one is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from imgflow.orchestration.sensing import listing
from imgflow.orchestration.sensing.listing import WATCH_SECONDS, Watch
from imgflow.store.location import parse_location
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg


class Clock:
    """Time that passes when somebody waits, or looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []
        monkeypatch.setattr(
            listing, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        )

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def looks(clock: Clock, url: str, interval_seconds: float, look_seconds: float) -> int:
    """How often a tick looks that never finds anything."""
    source: Any = SimpleNamespace(location=parse_location(url, setting="TEST"))
    watch = Watch(interval_seconds)
    count = 0
    while True:
        count += 1
        clock.now += look_seconds
        if not watch.goes_on(source):
            return count


def test_a_bucket_is_listed_no_more_often_than_the_setting_says(clock: Clock) -> None:
    assert looks(clock, "s3://bucket/in", 1, look_seconds=0.1) == 5
    assert clock.waits == [1, 1, 1, 1]


def test_a_folder_is_looked_at_for_a_tenth_of_the_time(clock: Clock) -> None:
    assert looks(clock, "file:///in", 1, look_seconds=0.02) == pytest.approx(
        WATCH_SECONDS / (11 * 0.02), abs=1
    )
    assert looks(clock, "file:///in", 1, look_seconds=0.3) == 2


@pytest.mark.parametrize("url", ["s3://bucket/in", "file:///in"])
def test_with_ticks_further_apart_each_looks_once(clock: Clock, url: str) -> None:
    assert looks(clock, url, 5, look_seconds=0.02) == 1
    assert clock.waits == []


def test_a_listing_that_takes_as_long_as_a_tick_is_not_repeated(clock: Clock) -> None:
    assert looks(clock, "file:///in", 1, look_seconds=WATCH_SECONDS) == 1


def test_an_upload_that_lands_while_a_tick_looks_is_asked_for_by_it(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(sensor_seconds=1)
    waits = []

    def land(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            put(project, "late.jpg", jpeg())

    monkeypatch.setattr(
        listing, "time", SimpleNamespace(monotonic=time.monotonic, time=time.time, sleep=land)
    )
    result = project.tick()
    assert len(waits) == 2
    (run,) = project.run_requests(result)
    assert run.success
    assert project.statuses("photo/thumbnail") == {"late.jpg": "green"}


def test_a_tick_of_a_round_does_not_look_twice_at_its_part(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_OBJECTS", 2)
    project = make_project(sensor_seconds=1, tick_pages=1)
    for number in range(3):
        put(project, f"{number}.jpg", jpeg())
    project.run_requests(project.tick())
    never = SimpleNamespace(
        monotonic=time.monotonic,
        time=time.time,
        sleep=lambda _seconds: pytest.fail("it waited"),
    )
    monkeypatch.setattr(listing, "time", never)
    first = project.tick()
    assert "2 objects listed" in str(first.skip_reason)
    assert listing.Round.from_cursor(first.cursor).resume_after == "1.jpg"
