"""What a catalogue of a million images costs beside one of 10,000: ticks, runs, sealing, memory.

`python -m benchmarks.scale [ROWS]` prints the table for ROWS images. The catalogues are filled by
SQL, and up to `IMGFLOW_HOT_PARTITIONS` of their images have a partition. Both are measured in turn,
each in its own process for all rounds (`serve`); memory is measured in fresh processes.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bookkeeping import Bookkeeping
from benchmarks.table import Measure, show

if TYPE_CHECKING:
    from imgflow.store.objects import Page, SourceObject

LIMIT = 1.5
SMALL, LARGE = 10_000, 200_000
ROUNDS = 5
PAGE = 1_000
NEW = 10
SEALED = 500
COMMANDS = ("fill", "serve", "tick", "run")

# Whatever counts or lists the images of a state takes longer if there are more.
GROWS = ("counts", "reasons", "what no run may cover")

FILL = """
INSERT INTO images (source, key, kind, state, reason_code, announced, announced_etag,
    announced_size, announced_last_modified, etag, size, last_modified, processed, sha256,
    media_type, width, height, mode, recipe, run_id, outputs, in_partitions, created_at, updated_at)
SELECT :source, 'photos/' || lpad(n::text, 8, '0') || '.jpg', 'photo',
    CASE WHEN n % 200 = 7 THEN 'rejected' ELSE 'ready' END,
    CASE WHEN n % 200 = 7 THEN 'not-an-image' END,
    to_hex(n) || '/' || 100000 + n || '/20260101T000000Z', to_hex(n), 100000 + n, :moment,
    to_hex(n), 100000 + n, :moment, to_hex(n) || '/' || 100000 + n || '/20260101T000000Z',
    encode(sha256(n::text::bytea), 'hex'), 'image/jpeg', 1024, 768, 'RGB', '0123456789abcdef',
    '00000000-0000-0000-0000-000000000000',
    jsonb_build_object('grayscale', record, 'thumbnail', record), n > :rows - :hot,
    now() - (:rows - n) * interval '1 second', now() - (:rows - n) * interval '1 second'
FROM generate_series(1, :rows) AS n, LATERAL (SELECT jsonb_build_object(
    'name', 'grayscale/' || left(encode(sha256(convert_to(:source, 'UTF8')), 'hex'), 8)
        || '/photos/' || lpad(n::text, 8, '0') || '.jpg/@' || md5(n::text) || '.jpg',
    'fingerprint', '0123456789abcdef', 'media_type', 'image/jpeg', 'size', 12345, 'width', 256,
    'height', 192, 'sha256', encode(sha256(n::text::bytea), 'hex')) AS record) AS made
"""
FILL_PARTITIONS = """
INSERT INTO dynamic_partitions (partitions_def_name, partition)
SELECT 'photos', key FROM images WHERE source = :source AND in_partitions ORDER BY id
"""

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def known(number: int) -> SourceObject:
    """Return the upload of a row that `FILL` made."""
    from imgflow.store.objects import SourceObject

    return SourceObject(f"photos/{number:08}.jpg", f"{number:x}", None, 100_000 + number, MOMENT)


class Pages:
    """A source that shows one page of known uploads, perhaps followed by some new ones."""

    def __init__(self, number: int, new: Sequence[SourceObject] = ()) -> None:
        """Show the page of this number, from 0."""
        first = number * PAGE
        # Start after the new ones that an earlier round may have put there.
        self.start_after = f"{known(first).key}~~" if first else None
        self._objects = [*map(known, range(first + 1, first + PAGE + 1)), *new]

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """Answer every request with the same page."""
        del start_after, limit
        from imgflow.store.objects import Digest, Page

        shown = [text for found in self._objects for text in (found.key, found.identity)]
        return Page(self._objects, Digest.of("identity", shown), self._objects[-1].key)


class Imgflow(Bookkeeping):
    """An imgflow with a catalogue of this many rows, whose runs skip the pixels."""

    def __init__(self, rows: int) -> None:
        """Open the database of the settings."""
        from imgflow.orchestration.dagster_storage.instance import open_instance
        from imgflow.orchestration.runs.requests import Batching

        super().__init__()
        self.rows = rows
        self.hot = min(rows, self.settings.hot_partitions)
        self.instance = open_instance(self.settings, self.url)
        # Nothing is sealed, except where sealing is measured.
        self.batching = Batching(5_000, seconds=1e9, hot=sys.maxsize)

    def fill(self) -> None:
        """Make the rows, and the partitions of the newest ones."""
        import sqlalchemy as sa

        values = {
            "source": self.catalog.source,
            "rows": self.rows,
            "hot": self.hot,
            "moment": MOMENT,
        }
        engine = self.catalog.engine.execution_options(isolation_level="AUTOCOMMIT")
        with self.instance, engine.connect() as connection:
            connection.execute(sa.text(FILL), values)
            connection.execute(sa.text(FILL_PARTITIONS), values)
            connection.execute(sa.text("VACUUM ANALYZE images, dynamic_partitions"))

    def list_known(self) -> None:
        """List a page that has only known uploads."""
        self._list(Pages(9))

    def ask_for_new(self, number: int) -> Any:
        """List a page that has new uploads too, and request runs over them."""
        from imgflow.orchestration.runs.requests import request_batches

        last = known((number + 1) * PAGE)
        self._list(Pages(number, [replace(last, key=f"{last.key}~{n}") for n in range(NEW)]))
        requests = request_batches(
            [self.family], self.catalog, self.instance, batching=self.batching
        )
        (request,) = requests.batches
        if len(request.image_ids) != NEW:
            raise SystemExit(f"asked for {len(request.image_ids)} images")
        return request

    def run_request(self, request: Any) -> None:
        """Run a request to its end."""
        from imgflow.service.ingest import QUIET

        if not self.job.execute_in_process(
            QUIET, instance=self.instance, tags=request.tags
        ).success:
            raise SystemExit("the run failed")

    def seal(self) -> None:
        """Seal a fixed number of images."""
        from imgflow.orchestration.runs.hot_set import seal

        if seal(self.family, self.catalog, self.instance, most=SEALED) != SEALED:
            raise SystemExit("not all were sealed")

    def queries(self) -> dict[str, Callable[[], object]]:
        """Return the catalogue's queries by name."""
        catalog, middle = self.catalog, self.rows // 2
        return {
            "one row by key": lambda: catalog.by_keys([known(middle).key]),
            "one row by id": lambda: catalog.by_id(middle),
            "a page of rows": lambda: catalog.page(limit=100, after_id=middle),
            "a page of rejected rows": lambda: catalog.page(limit=50, state="rejected"),
            "a page of deleted rows": lambda: catalog.page(limit=100, state="deleted"),
            "a page by prefix": lambda: catalog.page(limit=100, prefix=known(middle).key[:14]),
            "counts": catalog.counts,
            "reasons": catalog.reasons,
            "what waits": lambda: catalog.waiting("photo", active=["a"], most=5_000),
            "since when it waits": catalog.oldest_pending,
            "what no run may cover": lambda: catalog.untouchable("photo", active=["a"]),
            "contents of 10 sizes": lambda: catalog.same_size(
                "photo", [100_000 + middle + n for n in range(10)]
            ),
        }

    def measure(self, number: int) -> dict[str, float]:
        """Measure everything once, in seconds by what was done."""
        found = {"tick, a known page": _seconds(self.list_known)}
        began = time.perf_counter()
        request = self.ask_for_new(number)
        found[f"tick, {NEW} new images"] = time.perf_counter() - began
        found[f"run over {NEW} images"] = _seconds(lambda: self.run_request(request))
        found[f"sealing {SEALED} images"] = _seconds(self.seal)
        for name, query in self.queries().items():
            found[name] = min(_seconds(query) for _ in range(3))
        return found

    def _list(self, pages: Pages) -> None:
        from imgflow.orchestration.sensing.listing import Round, list_and_announce

        def follow(missing: Sequence[str]) -> None:
            if missing:
                raise SystemExit(f"{len(missing)} images are missing: {missing[:3]}")

        list_and_announce(pages, self.catalog, Round(pages.start_after), pages=1, follow=follow)


def main() -> None:
    what, rows = sys.argv[1], int(sys.argv[2])
    imgflow = Imgflow(rows)
    if what == "fill":
        imgflow.fill()
        return
    with imgflow.instance:
        if what == "serve":
            for line in sys.stdin:
                sys.stdout.write(json.dumps(imgflow.measure(int(line))) + "\n")
                sys.stdout.flush()
            return
        imgflow.list_known()
        request = imgflow.ask_for_new(ROUNDS + 1 + (what == "run"))
        megabytes = _peak()
        imgflow.run_request(request)  # after a tick too, so that no image stays waiting
        if what == "run":
            megabytes = _peak()
    sys.stdout.write(json.dumps(megabytes) + "\n")


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _command(what: str, rows: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.scale", what, str(rows)]


def _variables(home: Path) -> dict[str, str]:
    return {**os.environ, "IMGFLOW_HOME": str(home), "IMGFLOW_WORKERS": "1"}


@contextmanager
def served(rows: int, home: Path) -> Iterator[Callable[[int], dict[str, float]]]:
    """Start a process; yields a function that has it measure the round with a given number."""
    with subprocess.Popen(
        _command("serve", rows),
        env=_variables(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answers = process.stdin, process.stdout
        if asked is None or answers is None:
            raise SystemExit("no pipes")

        def measured(number: int) -> dict[str, float]:
            asked.write(f"{number}\n")
            asked.flush()
            found: dict[str, float] = json.loads(answers.readline())
            return found

        yield measured
        asked.close()


def peak(what: str, rows: int, home: Path) -> float:
    """Return the peak memory, in MB, of a fresh process that does this once."""
    done = subprocess.run(
        _command(what, rows), env=_variables(home), stdout=subprocess.PIPE, check=True, text=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(rows: int = LARGE) -> list[Measure]:
    """Measure this many images beside 10,000, in turn."""
    sizes = (SMALL, rows)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        homes = [Path(folder) / str(size) for size in sizes]
        for size, home in zip(sizes, homes, strict=True):
            subprocess.run(_command("fill", size), env=_variables(home), check=True)
        memory = {
            f"peak memory, {what} over {NEW} new images, MB": [
                peak(what, size, home) for size, home in zip(sizes, homes, strict=True)
            ]
            for what in ("tick", "run")
        }
        both = [
            stack.enter_context(served(size, home)) for size, home in zip(sizes, homes, strict=True)
        ]
        rounds = []
        for number in range(ROUNDS + 1):
            # The second one finds the processor's caches full of the other's rows, so alternate.
            order = (0, 1) if number % 2 else (1, 0)
            measured = {which: both[which](number) for which in order}
            rounds.append((measured[0], measured[1]))
    del rounds[0]  # it only fills caches, including Dagster's
    found = []
    for name in rounds[0][0]:
        small, large = ([1000 * measured[which][name] for measured in rounds] for which in (0, 1))
        found.append((f"{name}, ms", statistics.median(small), statistics.median(large)))
    found += [(name, *figures) for name, figures in memory.items()]
    return [
        Measure(
            f"{rows:,} images: {name}",
            large,
            f"with {SMALL:,}",
            small,
            large / small,
            "grows" if name.startswith(GROWS) else f"<= {LIMIT}",
        )
        for name, small, large in found
    ]


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        main()
    else:
        show(measure(int(sys.argv[1]) if sys.argv[1:] else LARGE))
