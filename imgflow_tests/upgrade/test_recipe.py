"""A change of recipe while uploads come in: processes of both recipes, and one outcome."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from imgflow.assembly import build_families
from imgflow.orchestration.upkeep.reconcile import backfill_stale
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.processes import Gate, Server
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg

OLD, NEW = 64, 32
ROUNDS = 3
UPLOADS_IN_A_ROUND = 12


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    servers = Server(), Server()
    yield servers
    for server in servers:
        server.stop()


class Uploads(threading.Thread):
    """Uploads photographs, and one of them again, while processes work."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__()
        self.folder, self.number = folder, number

    def run(self) -> None:
        for index in range(UPLOADS_IN_A_ROUND):
            self.put(f"{self.number}-{index:02}.jpg", seed=100 * self.number + index)
        self.put("overwritten.jpg", seed=self.number)

    def put(self, key: str, seed: int) -> None:
        body = jpeg(160, 120, seed=seed)
        partial = self.folder / f".{key}.part"
        partial.write_bytes(body)
        partial.rename(self.folder / key)


def made(instance: dg.DagsterInstance) -> Counter[str]:
    """How often the thumbnail of each image was made."""
    records = instance.fetch_materializations(dg.AssetKey(["photo", "thumbnail"]), limit=1_000)
    materializations = [record.asset_materialization for record in records.records]
    return Counter(
        str(found.partition)
        for found in materializations
        if found is not None and found.metadata["noop"].value is False
    )


@pytest.mark.slow
def test_a_recipe_that_changes_under_load_ends_in_all_images_with_the_new_one(
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    servers: tuple[Server, Server],
    gate: Gate,
    tmp_path: Path,
) -> None:
    old, new = servers

    def start(server: Server, size: int) -> Project:
        """Have a process of this recipe begin, and return its project."""
        project = Project(make_settings(thumbnail_size=size, workers=1), instance)
        server.start(gate, tmp_path / str(size), "imgflow", "ingest", "--json")
        return project

    # What was there before the change.
    before = Uploads(start(old, OLD).source.location.folder, ROUNDS)
    before.run()
    with gate.held("start"):
        pass
    assert json.loads(old.ended().output)["processed"] == UPLOADS_IN_A_ROUND + 1
    for number in range(ROUNDS):
        start(old, OLD)
        project = start(new, NEW)
        uploads = Uploads(project.source.location.folder, number)
        with gate.held("start", "start"):
            uploads.start()
        for server in servers:
            ended = server.ended()
            assert ended.code == 0, ended.log
        uploads.join()
        # The night of the new version, while workers of the old one go on in the next round.
        backfill_stale(build_families(project.settings), project.catalog)

    # The last process of the old version has ended.
    families = build_families(project.settings)

    def ingest() -> dict[str, float]:
        start(new, NEW)
        with gate.held("start"):
            pass
        ended = new.ended()
        assert ended.code == 0, ended.log
        report: dict[str, float] = json.loads(ended.output.splitlines()[-1])
        return report

    ingest()
    backfill_stale(families, project.catalog)
    ingest()
    fingerprint = families[0].outputs["thumbnail"]
    keys = {f"{n}-{i:02}.jpg" for n in range(ROUNDS + 1) for i in range(UPLOADS_IN_A_ROUND)}
    images = project.catalog.page(limit=1_000)
    assert {image.key for image in images} == keys | {"overwritten.jpg"}
    for image in images:
        assert image.state == "ready"
        assert image.processed == image.announced
        record = image.outputs["thumbnail"]
        assert (record["fingerprint"], record["width"]) == (fingerprint, NEW)
        assert project.outputs.get(record["name"])
    assert set(project.statuses("photo/thumbnail").values()) == {"green"}
    # Each was made by the new recipe once, and for each round in which the old one had it too, once
    # more by both.
    times = made(instance)
    assert 2 <= max(times.values()) <= 2 * (ROUNDS + 1), times

    assert backfill_stale(families, project.catalog)["photo"] == 0, "nothing is stale any more"
    again = ingest()
    assert (again["processed"], again["failed"]) == (0, 0)
    assert made(instance) == times
