"""A disk is full, and has room again: that of the outputs, or that of the home with the database.

`imgflow up` with its real processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from imgflow.store.naming import MARKER
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.receivers import webhook
from imgflow_tests.running import Running, ready, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

DISK_BYTES = 4 << 20
ROOM_BYTES = 64 << 10
HOME_BYTES = 256 << 20
IMAGES = 30


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to mount a disk")
        pytest.skip("needs a disk of its own, which only root mounts")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


@pytest.fixture
def home_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "home", HOME_BYTES) as folder:
        yield folder


@pytest.fixture
def running(tmp_path: Path, disk: Path) -> Iterator[Running]:
    outputs = disk / "outputs"
    outputs.mkdir()
    with ready(tmp_path, IMGFLOW_OUTPUT_URL=outputs.as_uri(), IMGFLOW_WORKERS="1") as started:
        yield started


PARTITIONS = """
{ assetNodes(group: {groupName: "photo", repositoryName: "__repository__",
                     repositoryLocationName: "imgflow"}) {
  assetKey { path }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions materializingPartitions
  } }
} }
"""
RUNS = """
{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
  ... on Runs { results { runId status } }
} }
"""


def processed(running: Running) -> float:
    text = running.read("/metrics").text
    line = 'imgflow_image_outcomes_total{kind="photo",outcome="processed"} '
    return sum(float(found[len(line) :]) for found in text.splitlines() if found.startswith(line))


def test_images_wait_while_the_disk_is_full_and_are_made_once_it_has_room(
    running: Running, disk: Path
) -> None:
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(DISK_BYTES - ROOM_BYTES - (disk.stat().st_blksize or 4_096)))
    for number in range(IMAGES):
        body = jpeg(400, 300, seed=number)
        (running.home / "source" / f"{number:02}.jpg").write_bytes(body)

    def troubled() -> list[str]:
        return [image["reason"] for image in running.images(state="pending") if image["reason"]]

    reasons = wait_until(troubled, 60)
    assert all("No space left on device" in reason for reason in reasons), reasons
    assert processed(running) < IMAGES
    wait_until(lambda: f"The disk of {disk}/outputs is full" in running.output())
    # What needs no room goes on: reading what is there.
    assert httpx.get(f"{running.api}/health/ready").status_code == 200

    ballast.unlink()
    wait_until(lambda: len(running.images(limit="100", state="ready")) == IMAGES, 120)
    wait_until(lambda: processed(running) >= IMAGES)  # counted right after they are ready
    assert processed(running) == IMAGES
    named = {}
    for image in running.images(limit="100"):
        for name in ("grayscale", "thumbnail"):
            shown = running.read(f"/images/{image['id']}/{name}")
            assert shown.status_code == 200
            named[f"{image['key']} {name}"] = hashlib.sha256(shown.content).hexdigest()
    files = [file for file in (disk / "outputs").rglob("*") if file.is_file()]
    files.remove(disk / "outputs" / MARKER)
    stored = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert sorted(stored) == sorted(named.values()), "nothing is left of what was written in part"
    keys = sorted(f"{number:02}.jpg" for number in range(IMAGES))
    assert sorted(image["key"] for image in running.images(limit="100")) == keys
    wait_until(lambda: not running.graphql(RUNS)["runsOrError"]["results"])
    nodes = running.graphql(PARTITIONS)["assetNodes"]
    assert {node["assetKey"]["path"][1] for node in nodes} >= {"grayscale", "thumbnail", "metadata"}
    for node in nodes:
        found = node["assetPartitionStatuses"]
        assert sorted(found.pop("materializedPartitions")) == keys, node
        assert set(map(len, found.values())) == {0}, node


def fill(folder: Path) -> Path:
    """Write until nothing more fits."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            return ballast
    raise AssertionError("a disk has an end")


@pytest.mark.timeout(900)
def test_a_full_disk_of_the_database_is_said_aloud_and_all_goes_on_once_it_has_room(
    tmp_path: Path, home_disk: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (
        webhook() as hook,
        ready(
            tmp_path,
            IMGFLOW_SOURCE_URL=source.as_uri(),
            IMGFLOW_WORKERS="1",
            IMGFLOW_ALERT_URLS=hook.url,
        ) as running,
    ):
        (source / "before.jpg").write_bytes(jpeg(200, 150, seed=1))
        wait_until(lambda: running.images(state="ready"), PATIENCE_SECONDS)
        ballast = fill(home_disk)
        for number in range(IMAGES):
            (source / f"{number:02}.jpg").write_bytes(jpeg(400, 300, seed=number + 2))
        wait_until(lambda: f"The disk of {home_disk} is full" in running.output(), 30)

        def parts() -> list[str]:
            answer = httpx.get(f"{running.api}/health/ready", timeout=10)
            return list(answer.json().get("parts", []))

        wait_until(lambda: "disk" in parts(), 30)
        assert (
            "The disk of the database is full"
            in (httpx.get(f"{running.api}/health/ready", timeout=10).json()["detail"])
        )
        assert 'imgflow_disk_full{disk="home"} 1.0' in running.read("/metrics").text
        doctor = running.command("doctor", "--json")
        assert doctor.returncode == 1
        findings = json.loads(doctor.stdout.splitlines()[-1])["findings"]
        (home,) = (one for one in findings if one["part"] == "home")
        assert (home["state"], "make room" in home["text"]) == ("wrong", True)
        wait_until(lambda: hook.messages, PATIENCE_SECONDS)
        assert "processing has stopped" in hook.messages[0]["title"]
        assert f"The disk of {home_disk} is full" in hook.messages[0]["message"]

        ballast.unlink()
        wait_until(
            lambda: running.is_well() and len(running.images(limit="100", state="ready")),
            PATIENCE_SECONDS,
        )
        wait_until(
            lambda: len(running.images(limit="100", state="ready")) == IMAGES + 1,
            PATIENCE_SECONDS,
        )
        wait_until(lambda: "The disk home is well again." in running.output(), 30)
        assert running.process.poll() is None
