"""What a ranged run costs besides pixels: events and rows of images that take no work.

Called as `python -m benchmarks.bookkeeping IMAGES` for one measurement in a process of its own.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.table import Measure
from imgflow.work.tasks import Outcome, Task

LIMIT_MILLISECONDS = 1.0

PICTURE_BYTES = 450


def no_work(task: Task) -> Outcome:
    """Answer as a worker would, without reading or making anything."""
    from imgflow.catalog.records import Verdict

    outputs = {
        name: {
            "name": f"{name}/{task.upload.key}/@0.jpg",
            "fingerprint": fingerprint,
            "media_type": "image/jpeg",
            "size": 12_345,
            "width": 256,
            "height": 192,
            "sha256": f"{task.image_id:064x}",
        }
        for name, fingerprint in task.enabled.items()
    }
    verdict = Verdict(
        image_id=task.image_id,
        upload=task.upload,
        state="ready",
        run_id=task.run_id,
        recipe="0" * 16,
        sha256=f"{task.image_id:064x}",
        media_type="image/jpeg",
        width=1024,
        height=768,
        mode="RGB",
        outputs=outputs,
    )
    return Outcome(
        verdict,
        made=tuple(outputs),
        milliseconds={"read": 1.0, "process": 5.0},
        pictures=dict.fromkeys((*outputs, "metadata"), _picture(task.image_id)),
    )


def _picture(seed: int) -> str:
    """Return as much text as the inline picture of a photograph, and as hard to compress."""
    body = base64.b64encode(random.Random(seed).randbytes(PICTURE_BYTES)).decode()
    return f"data:image/jpeg;base64,{body}"


class Bookkeeping:
    """An imgflow whose workers do nothing."""

    def __init__(self) -> None:
        """Assemble it from the settings."""
        import dagster as dg

        from imgflow.assembly import build_families, build_resources
        from imgflow.catalog.database.engine import database_url, make_engine
        from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
        from imgflow.orchestration.assets import asset_definitions as examined
        from imgflow.orchestration.assets.asset_definitions import family_assets, family_job
        from imgflow.settings.variables import load_settings
        from imgflow.store.config import StoreConfig

        # No output is written here that a check could read.
        setattr(examined, "examine_sample", lambda *_: None)  # noqa: B010 - not a part of its type
        self.settings = settings = load_settings()
        self.url = database_url(settings)
        source = StoreConfig(settings.source_url, settings.output_url).locations()[0].url
        self.catalog = PostgresCatalog(make_engine(self.url), source)
        self.catalog.migrate()
        self.family = replace(build_families(settings)[0], work=no_work)
        assets = family_assets(
            self.family, settings.photo_recipe, settings.depth_recipe, settings.output_url
        )
        self.job = dg.Definitions(
            assets=[assets],
            jobs=[family_job(self.family, assets)],
            resources=build_resources(settings),
        ).resolve_job_def(self.family.job)

    @contextmanager
    def opened(self) -> Iterator[Bookkeeping]:
        """Open Dagster's instance until the end of the block."""
        from imgflow.orchestration.dagster_storage.instance import open_instance

        with open_instance(self.settings, self.url) as self.instance:
            yield self

    def run(self, start: int, images: int) -> float:
        """Announce this many new images, run over them, and return the seconds it took."""
        from imgflow.orchestration.runs.requests import Batching, request_batches
        from imgflow.service.ingest import QUIET
        from imgflow.store.objects import SourceObject

        moment = datetime(2026, 1, 1, tzinfo=UTC)
        uploads = [
            SourceObject(f"{start // 1000}/img_{n:07d}.jpg", f"{n:x}", None, 99, moment)
            for n in range(start, start + images)
        ]
        began = time.monotonic()
        self.catalog.announce(uploads)
        batching = Batching(images, seconds=1e9)
        requests = request_batches([self.family], self.catalog, self.instance, batching=batching)
        (request,) = requests.batches
        result = self.job.execute_in_process(QUIET, instance=self.instance, tags=request.tags)
        if not result.success:
            raise SystemExit("the run failed")
        return time.monotonic() - began


def main() -> None:
    """Run three batches; the first has cold caches."""
    images = int(sys.argv[1])
    with Bookkeeping().opened() as books:
        seconds = [books.run(wave * images, images) for wave in range(3)]
    print(json.dumps({"seconds": min(seconds)}))


def measure(images: int = 1_000) -> list[Measure]:
    """Measure one batch against the limit."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.bookkeeping", str(images)],
            env={**os.environ, "IMGFLOW_HOME": str(Path(folder) / "home"), "IMGFLOW_WORKERS": "2"},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    spent = json.loads(done.stdout.splitlines()[-1])["seconds"] / images * 1000
    return [
        Measure(
            f"bookkeeping in a ranged run of {images}, ms an image",
            spent,
            "limit",
            LIMIT_MILLISECONDS,
            spent / LIMIT_MILLISECONDS,
            "<= 1",
        )
    ]


if __name__ == "__main__":
    main()
