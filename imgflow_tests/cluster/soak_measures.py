"""What a soak measures while it goes on: memory, open files and connections of every service."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import linear_regression, median

import psutil
import sqlalchemy as sa

from imgflow_tests.cluster.cluster import Cluster

LOOK_SECONDS = 3.0
MIB = 2**20

# The store of the tests keeps its objects in memory, and PostgreSQL's processes share theirs, which
# fills up to the size that it is given.
GROW = ("s3", "postgres")

# A process is judged when it lived for this share of the time; the first third is its warm-up.
LIVED = 0.5
WARM_UP = 1 / 3
LEAST_SAMPLES = 12

# Of any process, in MiB.
MOST_MEMORY = 350.0

# Of a process that is warm: so much more, or this share of what it has, is noise. Runs grow with
# what waits, and processes with the largest run, so it takes minutes to tell.
GROWTH_SECONDS = 300.0
MOST_GROWTH = 12.0
MOST_GROWTH_SHARE = 0.08

# Of one service with all its processes, and of all together; the compose file has PostgreSQL take
# 300.
MOST_CONNECTIONS = 25
MOST_CONNECTIONS_OF_ALL = 100
MOST_FILES = 400

CONNECTIONS = (
    "SELECT host(client_addr), count(*) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND client_addr IS NOT NULL GROUP BY 1"
)


@dataclass
class Life:
    """One process: seconds since the beginning, memory in MiB and open files at each look."""

    service: str
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    @property
    def warm(self) -> slice:
        """What counts for its growth."""
        return slice(int(len(self.seconds) * WARM_UP), None)

    @property
    def growth(self) -> float:
        """MiB from the first half to the second, once it is warm."""
        memory = self.memory[self.warm]
        middle = len(memory) // 2
        return median(memory[middle:]) - median(memory[:middle])

    @property
    def slope(self) -> float:
        """MiB a minute, once it is warm."""
        found = linear_regression(self.seconds[self.warm], self.memory[self.warm])
        return found.slope * 60


@dataclass
class Measures:
    """All looks of a soak."""

    lives: dict[int, Life] = field(default_factory=dict)
    connections: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    total_connections: list[int] = field(default_factory=list)

    def look(self, cluster: Cluster, engine: sa.Engine, seconds: float) -> None:
        """Look once."""
        for name in cluster.specs:
            for process in _processes(cluster, name):
                try:
                    memory, files = process.memory_info().rss / MIB, process.num_fds()
                except psutil.Error:
                    continue  # it ended, or was killed
                life = self.lives.setdefault(process.pid, Life(name))
                life.seconds.append(seconds)
                life.memory.append(memory)
                life.files.append(files)
        names = {machine.address: name for name, machine in cluster.machines.items()}
        with engine.connect() as connection:
            found = dict(connection.exec_driver_sql(CONNECTIONS).tuples().all())
        ours = {names[address]: count for address, count in found.items() if address in names}
        for name, count in ours.items():
            self.connections[name].append(count)
        self.total_connections.append(sum(found.values()))

    def long_lives(self) -> list[Life]:
        """The processes whose growth says something."""
        last = max((life.seconds[-1] for life in self.lives.values()), default=0.0)
        return [
            life
            for life in self.lives.values()
            if life.service not in GROW
            and len(life.seconds) >= LEAST_SAMPLES
            and life.seconds[-1] - life.seconds[0] >= LIVED * last
        ]

    def excesses(self) -> list[str]:
        """What grew, or passed its bound, in sentences."""
        found = [
            f"a process of {life.service} grew by {life.growth:.1f} MiB, {life.slope:.2f} a minute"
            for life in self.long_lives()
            if life.seconds[-1] - life.seconds[0] >= GROWTH_SECONDS
            and life.growth > max(MOST_GROWTH, MOST_GROWTH_SHARE * median(life.memory))
        ]
        found += [
            f"a process of {life.service} had {max(life.memory):.0f} MiB"
            for life in self.lives.values()
            if life.service not in GROW and max(life.memory) > MOST_MEMORY
        ]
        found += [
            f"{name} had {max(counts)} connections to the database"
            for name, counts in self.connections.items()
            if max(counts) > MOST_CONNECTIONS
        ]
        if (most := max(self.total_connections, default=0)) > MOST_CONNECTIONS_OF_ALL:
            found.append(f"there were {most} connections to the database")
        return found + [
            f"a process of {life.service} had {max(life.files)} open files"
            for life in self.lives.values()
            if life.service not in GROW and max(life.files) > MOST_FILES
        ]

    def services(self) -> dict[str, list[Life]]:
        """The processes of each service."""
        found: dict[str, list[Life]] = defaultdict(list)
        for life in self.lives.values():
            found[life.service].append(life)
        return dict(found)


@contextmanager
def measuring(cluster: Cluster) -> Iterator[Measures]:
    """Look again and again."""
    measures, is_over, began = Measures(), threading.Event(), time.monotonic()
    engine = cluster.engine()

    def look() -> None:
        while not is_over.wait(LOOK_SECONDS):
            measures.look(cluster, engine, time.monotonic() - began)

    looking = threading.Thread(target=look, name="looking")
    looking.start()
    try:
        yield measures
    finally:
        is_over.set()
        looking.join()
        engine.dispose()


def _processes(cluster: Cluster, name: str) -> Sequence[psutil.Process]:
    try:
        return cluster.processes(name) if cluster.is_running(name) else ()
    except (KeyError, psutil.Error):
        return ()  # it was killed just now
