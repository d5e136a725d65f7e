"""The disk of the outputs is full, and has room again; `imgflow up` with its real processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

DISK_BYTES = 4 << 20
ROOM_BYTES = 64 << 10
IMAGES = 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to mount a disk")
        pytest.skip("needs a disk of its own, which only root mounts")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
