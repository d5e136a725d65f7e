"""Clocks of the daemon, the code server and workers jump by an hour, to the night, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imgflow_tests.cluster.agreement import Work, agree
from imgflow_tests.cluster.cluster import Cluster, until
from imgflow_tests.cluster.conftest import Observer
from imgflow_tests.cluster.faults import upload_batch
from imgflow_tests.pictures import jpeg

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

NIGHT = "nightly_backfill_stale"
HOUR = 2  # of the night, UTC

LIBRARY = "faketime/libfaketimeMT.so.1"
JUMPING = ("code-server", "daemon", "worker", "worker-other")


def library() -> Path | None:
    return next(Path("/usr/lib").glob(f"*/{LIBRARY}"), None)


# libfaketime 0.9.10 refuses the sleeps of Python 3.11, until a monotonic time, as invalid.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


class Clock:
    """Of the machines whose clock jumps; it goes on by itself."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(offset)
        new.replace(self.file)


@pytest.fixture
def clock(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = library()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have faketime")
        pytest.skip("needs faketime, which .ci/run installs")
    clock = Clock(tmp_path / "clock")
    before = {name: cluster.specs[name] for name in JUMPING}
    variables = {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_STAT": "1",
    }
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for name, spec in before.items():
        cluster.stop(name)
        cluster.specs[name] = replace(spec, environment={**spec.environment, **variables})
        cluster.start(name)
    yield clock
    for name, spec in before.items():
        cluster.stop(name)
        cluster.specs[name] = spec
        cluster.start(name)


def test_images_are_processed_once_while_clocks_jump(
    observer: Observer, name: str, clock: Clock
) -> None:
    cluster = observer.cluster
    before = Work.so_far(observer)
    early = upload_batch(observer, f"{name}/0", 20)
    observer.ready(*early)
    said = len(cluster.log("daemon", 10**7))
    clock.set("+3600")
    late = upload_batch(observer, f"{name}/1", 20)
    until(
        lambda: "clock is wrong" in cluster.log("daemon", 10**7)[said:],
        "the sensor says that the store refuses the clock",
    )
    clock.set("+0")
    if not cluster.is_running("daemon"):  # it ends when its parts seem to be silent for an hour
        cluster.start("daemon", wait=False)
    observer.ready(*late, seconds=90)
    agree(observer, name)
    assert Work.so_far(observer).since(before).processed == len(early) + len(late)
    for service in JUMPING:
        until(lambda service=service: cluster.check(service).returncode == 0, f"{service} is well")


def test_the_nightly_backfill_finds_what_is_stale_when_its_time_comes(
    observer: Observer, name: str, clock: Clock
) -> None:
    cluster, key = observer.cluster, f"{name}/a.jpg"
    observer.upload({key: jpeg(seed=80)})
    (image,) = observer.ready(key)
    wanted = image.outputs["thumbnail"]["fingerprint"]
    with observer.engine.begin() as connection:
        connection.exec_driver_sql(
            """UPDATE images SET outputs = jsonb_set(outputs, '{thumbnail,fingerprint}', '"old"')
            WHERE key = %s""",
            (key,),
        )
    clock.set(f"+{seconds_to_night():.0f}")

    def runs_of_the_night() -> list[str]:
        if not cluster.is_running("daemon"):  # it ends when its parts seem to be silent for long
            cluster.start("daemon", wait=False)
        with observer.engine.connect() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT status FROM runs JOIN run_tags USING (run_id) "
                    "WHERE key = 'dagster/schedule_name' AND value = %s",
                    (NIGHT,),
                ).scalars()
            )

    until(lambda: "SUCCESS" in runs_of_the_night(), "the nightly backfill has ended", seconds=120)
    assert runs_of_the_night() == ["SUCCESS"]
    clock.set("+0")
    if not cluster.is_running("daemon"):
        cluster.start("daemon", wait=False)
    until(
        lambda: observer.ready(key)[0].outputs["thumbnail"]["fingerprint"] == wanted,
        "the thumbnail is made again",
        seconds=90,
    )
    agree(observer, name)


def seconds_to_night() -> float:
    """Until shortly before the schedule's next time."""
    now = datetime.now(UTC)
    night = now.replace(hour=HOUR, minute=0, second=0, microsecond=0)
    return (night + timedelta(days=night <= now) - now).total_seconds() - 8
