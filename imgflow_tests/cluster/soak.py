"""A soak: images through two workers, with overwrites, deletions, and workers that are killed.

    python -m imgflow_tests.cluster.soak --images 20000 --minutes 15 --kill-seconds 60 --seed 1

The services are those of `docker-compose.yml` (see `cluster.py`). Objects come, change and go as
`soak_stories` tells from the seed; while they do, a worker is killed every so many seconds, with
everything on its machine, and started again. When nothing is left to be done, `soak_judge` compares
bucket, rows, outputs, partitions, events and requests with the stories, and `soak_measures` has
looked at memory, open files and connections all the time.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from zlib import crc32

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from imgflow_tests import ceph
from imgflow_tests.cluster.cluster import Cluster
from imgflow_tests.cluster.conftest import UNDER
from imgflow_tests.cluster.soak_judge import etag_of, judge, still_to_do
from imgflow_tests.cluster.soak_measures import Measures, measuring
from imgflow_tests.cluster.soak_stored import Judgement
from imgflow_tests.cluster.soak_stories import Step, ends, tell

LANES = 4  # that upload; what happens to an object does so in one of them, in order

# Photographs have more of the work, and more of the deaths.
VICTIMS = ("worker", "worker-2", "worker", "worker-2", "worker-depth")

# So long it is waited for that a worker has images in hand, and as long again for any of them; each
# third worker dies whatever it does.
BUSY_SECONDS = 10.0

# Nothing to do, in so many looks in a row: the sensor has listed everything since the first.
QUIET_LOOKS = 8
LOOK_SECONDS = 1.0
STUCK_SECONDS = 420.0  # Dagster's run monitoring takes three minutes for what never starts


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        images: objects that there are at one time or another.
        minutes: in which all that happens to them happens.
        kill_seconds: from one kill to the next, while it does.
        seed: of all that is left to chance.
        only_busy: kill no worker that has nothing in hand; what it was just about to begin would be
            found after minutes only.
    """

    images: int = 20_000
    minutes: float = 15.0
    kill_seconds: float = 60.0
    seed: int = 1
    only_busy: bool = False


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        plan: what was to happen.
        judgement: of all that is left.
        measures: of memory, open files and connections.
        kills: which workers were killed, with how many images in hand.
        in_hand: keys of these images, how often.
        told_seconds: until the last upload.
        settled_seconds: until nothing was left to do.
        late_seconds: by which the last upload was late.
    """

    plan: Plan
    judgement: Judgement
    measures: Measures
    kills: list[tuple[str, int]] = field(default_factory=list)
    in_hand: Counter[str] = field(default_factory=Counter)
    told_seconds: float = 0.0
    settled_seconds: float = 0.0
    late_seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """All that is not as it should be, in sentences."""
        return [*self.judgement.wrong, *self.measures.excesses()]


def running(folder: Path) -> Cluster:
    """The cluster of a soak: deleted uploads take their images with them."""
    cluster = Cluster(folder, WORKERS="2", WORKER_PROCESSES="1")
    for name, spec in cluster.specs.items():
        if spec.is_ours:
            environment = {**spec.environment, "IMGFLOW_ON_DELETE": "tombstone"}
            cluster.specs[name] = replace(spec, environment=environment)
    return cluster


def soak(cluster: Cluster, plan: Plan) -> Soaked:
    """Let everything happen, wait until nothing is left to be done, and judge."""
    steps = tell(plan.images, plan.seed)
    etags = {key: etag_of(content) for key, content in ends(steps).items()}
    engine = cluster.engine()
    killer = Killer(cluster, engine, plan)
    began = time.monotonic()
    with measuring(cluster) as measures:
        with killer:
            late = play(cluster, steps, plan.minutes * 60)
        told = time.monotonic() - began
        left = wait_until_quiet(engine, etags)
        settled = time.monotonic() - began
    engine.dispose()
    judgement = judge(cluster, steps, killer.in_hand)
    if left:
        judgement.wrong.insert(0, f"still to do: {left}")
    return Soaked(plan, judgement, measures, killer.kills, killer.in_hand, told, settled, late)


def play(cluster: Cluster, steps: Sequence[Step], seconds: float) -> float:
    """Upload, overwrite and delete, in so many seconds.

    Returns:
        How late the last was, in seconds.
    """
    s3, began, late = cluster.s3(), time.monotonic(), [0.0]

    def happens(step: Step, due: float) -> None:
        time.sleep(max(0.0, due - time.monotonic()))
        if step.content is None:
            s3.delete_object(Bucket="imgflow", Key=UNDER + step.key)
        else:
            s3.put_object(Bucket="imgflow", Key=UNDER + step.key, Body=step.content.body())
        late[0] = time.monotonic() - due

    lanes = [ThreadPoolExecutor(1) for _ in range(LANES)]
    happening: list[Future[None]] = []
    try:
        for step in steps:
            lane = lanes[crc32(step.key.encode()) % LANES]
            happening.append(lane.submit(happens, step, began + seconds * step.moment))
        for one in happening:
            one.result()
    finally:
        for lane in lanes:
            lane.shutdown(cancel_futures=True)
    return late[0]


def wait_until_quiet(engine: sa.Engine, etags: dict[str, str]) -> str:
    """Wait until nothing is left to be done; returns what is, when nothing happens any more."""
    quiet, last, changed = 0, "", time.monotonic()
    while quiet < QUIET_LOOKS:
        time.sleep(LOOK_SECONDS)
        left = still_to_do(engine, etags)
        quiet = 0 if left else quiet + 1
        if left != last:
            last, changed = left, time.monotonic()
        elif left and time.monotonic() - changed > STUCK_SECONDS:
            return left
    return ""


class Killer:
    """Kills a worker every so many seconds and starts it again."""

    def __init__(self, cluster: Cluster, engine: sa.Engine, plan: Plan) -> None:
        self._cluster, self._engine, self._plan = cluster, engine, plan
        self._is_over = threading.Event()
        self._threads = ThreadPoolExecutor(1)
        self.kills: list[tuple[str, int]] = []
        self.in_hand: Counter[str] = Counter()

    def __enter__(self) -> Killer:
        self._killing = self._threads.submit(self._kill_again_and_again)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._killing.result()
        self._threads.shutdown()

    def _kill_again_and_again(self) -> None:
        victims = cycle(VICTIMS)
        while not self._is_over.wait(self._plan.kill_seconds):
            victim = next(victims)
            if self._plan.only_busy or len(self.kills) % 3 != 2:
                busy = self._busy(victim)
                if not busy and self._plan.only_busy:
                    continue
                victim = busy or victim
            self._kill(victim)

    def _busy(self, first: str) -> str:
        """A worker with images in hand, that one if it gets some in time; none has: nothing."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < 2 * BUSY_SECONDS:
            for name in (first,) if waited < BUSY_SECONDS else VICTIMS:
                if self._held(name):
                    return name
            if self._is_over.wait(0.05):
                break
        return ""

    def _kill(self, name: str) -> None:
        held = self._held(name)
        self._cluster.kill(name)
        held |= self._held(name)
        with self._engine.connect() as connection:
            unwritten = connection.exec_driver_sql(
                "SELECT key FROM images WHERE id = ANY(%s) AND processed IS DISTINCT FROM announced"
                " AND state <> 'deleted'",
                (sorted(held),),
            ).scalars()
            self.in_hand.update(keys := list(unwritten))
        self.kills.append((name, len(keys)))
        self._cluster.start(name, wait=False)

    def _held(self, name: str) -> set[int]:
        """Ids of the images of the runs that a worker has in hand."""
        with self._engine.connect() as connection:
            holds = connection.exec_driver_sql(
                "SELECT run_id, image_ids FROM run_holds WHERE ended_at IS NULL"
            ).all()
        log = self._cluster.log(name, 10**7) if holds else ""
        return {image for run_id, ids in holds if run_id in log for image in ids}


def show(soaked: Soaked) -> None:
    """Print what was found."""
    console, counts = Console(width=120), dict(soaked.judgement.counts)
    plan, pace = soaked.plan, counts["uploads"] / soaked.settled_seconds
    table = Table("what", "figure", title=f"soak: {plan}")
    for name, figure in counts.items():
        table.add_row(name, f"{figure:,}")
    table.add_row("seconds of uploads", f"{soaked.told_seconds:,.0f}")
    table.add_row("seconds until nothing was left to do", f"{soaked.settled_seconds:,.0f}")
    table.add_row("uploads a second", f"{pace:.1f}")
    table.add_row("the last upload was late by, s", f"{soaked.late_seconds:.1f}")
    table.add_row("kills", f"{len(soaked.kills)}")
    table.add_row("kills, with images in hand", ", ".join(f"{n}: {c}" for n, c in soaked.kills))
    most = max(soaked.measures.total_connections, default=0)
    table.add_row("most connections to the database", f"{most}")
    console.print(table)
    memory = Table("service", "processes", "peak MiB", "growth MiB", "MiB/min", "files", "database")
    long = soaked.measures.long_lives()
    for name, lives in sorted(soaked.measures.services().items()):
        warm = [life for life in long if life.service == name]
        memory.add_row(
            name,
            f"{len(lives)}",
            f"{max(max(life.memory) for life in lives):.0f}",
            ", ".join(f"{life.growth:+.1f}" for life in warm),
            ", ".join(f"{life.slope:+.2f}" for life in warm),
            f"{max(max(life.files) for life in lives)}",
            f"{max(soaked.measures.connections.get(name, [0]))}",
        )
    console.print(memory)
    for sentence in soaked.wrong:
        console.print(f"WRONG: {sentence}", highlight=False, markup=False)
    console.print("All is well." if not soaked.wrong else "Not all is well.")


def main() -> int:
    """Run a soak by the arguments of the command line."""
    default = Plan()
    parser = argparse.ArgumentParser(description="A soak of the cluster of docker-compose.yml.")
    parser.add_argument("--images", type=int, default=default.images)
    parser.add_argument("--minutes", type=float, default=default.minutes)
    parser.add_argument("--kill-seconds", type=float, default=default.kill_seconds)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--only-busy", action="store_true", help="kill workers that have a run")
    parser.add_argument("--folder", type=Path, help="a new one, where data and logs stay")
    arguments = vars(parser.parse_args())
    folder = arguments.pop("folder")
    if not (ceph.is_installed() and shutil.which("redis-server")):
        sys.exit("A soak needs Ceph's gateway and redis-server; .ci/run installs both.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the cluster ends too
    with (
        tempfile.TemporaryDirectory(prefix="imgflow-soak-") as name,
        running(folder or Path(name) / "cluster") as cluster,
    ):
        cluster.up()
        soaked = soak(cluster, Plan(**arguments))
    show(soaked)
    return 1 if soaked.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
