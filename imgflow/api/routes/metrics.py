"""The route `/metrics` for Prometheus: metrics of the catalogue, of all runs and of this process.

The metrics of this process are defined in `imgflow.api.http.measures`; the counters of runs are
kept by `imgflow.catalog.postgres.counters`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import product

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.registry import Collector

from imgflow.api.backend.connections import Connections
from imgflow.api.backend.readiness import PROBE_SECONDS
from imgflow.api.http.measures import Measures
from imgflow.api.routing import get
from imgflow.catalog.postgres import counters
from imgflow.catalog.postgres.counters import (
    ARRIVAL_BOUNDS,
    ARRIVAL_TO_READY,
    Reading,
    cumulated,
    read_state,
    series,
)
from imgflow.catalog.postgres.sensing import Pulse
from imgflow.catalog.records import Kind, State
from imgflow.errors import TROUBLE_CODES, ImgflowError
from imgflow.store.disks import NOTHING_WRITTEN

logger = logging.getLogger(__name__)
router = APIRouter(tags=["health"])

# However many scrapes come, the database is queried at most once in `FRESH_SECONDS` and for at most
# a tenth of the time: right after a million rows changed, counting them may take seconds.
FRESH_SECONDS = 5.0
FRESH_PER_SECOND = 10.0

KINDS: tuple[Kind, ...] = ("photo", "depth")
STATES: tuple[State, ...] = ("pending", "ready", "rejected", "deleted")
OUTCOMES = ("processed", "noop", "rejected", "trouble")

RUN_COUNTERS = {
    counters.COPIED: "Images processed without pixel work, since the same bytes were known.",
    counters.SOURCE_BYTES: "Bytes read of uploads that became ready.",
    counters.OUTPUT_BYTES: "Bytes of outputs that were made or copied.",
}


@get(
    router,
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Metrics.", "content": {CONTENT_TYPE_PLAIN_0_0_4: {}}}},
)
def read_metrics(request: Request) -> Response:
    """Metrics as Prometheus reads them; `imgflow_up` is 0 when the database does not answer."""
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(request.app.state.metrics), media_type=media_type)


def registry_of(connections: Connections, measures: Measures) -> CollectorRegistry:
    """Return everything that a scrape shows: `measures`, and the catalogue, read at that time."""
    registry = measures.registry

    def check() -> None:
        # The driver may wait minutes for a host that vanished; a probe does not.
        connections.database_probe.start().result(PROBE_SECONDS)

    def read() -> Reading:
        catalog = connections.catalog
        return read_state(catalog.engine, catalog.source, connections.sensors)

    registry.register(CatalogMetrics(check, read))
    registry.register(DiskMetrics(connections.full_disks))
    return registry


class CatalogMetrics(Collector):
    """Queries the catalogue when scraped, and keeps the answer for some seconds.

    Unknown values are left out: a zero would look like a restart or an empty catalogue.
    """

    def __init__(self, check: Callable[[], None], read: Callable[[], Reading]) -> None:
        """Store two functions, which raise if the database does not answer, or not in time."""
        self._check = check
        self._read = read
        self._lock = threading.Lock()
        self._is_up = False
        self._reading: Reading | None = None
        self._fresh_until = 0.0

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called in a handler's thread."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._ask()
            is_up, reading = self._is_up, self._reading
        yield GaugeMetricFamily("imgflow_up", "Whether the database answers.", value=float(is_up))
        if reading is not None:
            yield from gauges(reading)
            yield from supervision(reading.pulse)
            yield from run_counters(reading)
            yield arrivals(reading)

    def _ask(self) -> None:
        self._is_up, self._reading = False, None
        began = time.monotonic()
        try:
            self._check()
            self._is_up = True
            self._reading = self._read()
        except (ImgflowError, FutureTimeout) as error:
            logger.warning("Metrics without the catalogue: %s", error or "no answer in time")
        now = time.monotonic()
        self._fresh_until = now + max(FRESH_SECONDS, FRESH_PER_SECOND * (now - began))


class DiskMetrics(Collector):
    """Reports full disks; zero rather than a gap, so that alerts see both the start and the end."""

    def __init__(self, full_disks: Callable[[], Mapping[str, str]]) -> None:
        """Store the function that finds full disks."""
        self._full_disks = full_disks

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge with one value for each stored part."""
        full = self._full_disks()
        family = GaugeMetricFamily(
            "imgflow_disk_full", "Whether a disk that imgflow writes to is full.", labels=("disk",)
        )
        for part in NOTHING_WRITTEN:
            family.add_metric((part,), float(part in full))
        yield family


def gauges(reading: Reading) -> Iterator[Metric]:
    """Yield the state of the catalogue."""
    images = GaugeMetricFamily(
        "imgflow_images", "Images in the catalogue.", labels=("kind", "state")
    )
    for kind, state in product(KINDS, STATES):
        images.add_metric((kind, state), reading.images.get((kind, state), 0))
    yield images
    rejected = GaugeMetricFamily(
        "imgflow_rejected_images", "Rejected images by reason.", labels=("kind", "code")
    )
    for labels, count in sorted(reading.rejected.items()):
        rejected.add_metric(labels, count)
    yield rejected
    waiting = GaugeMetricFamily(
        "imgflow_waiting_images",
        "Images that trouble keeps waiting, by what it is.",
        labels=("kind", "code"),
    )
    # Zero rather than a gap, so that alerts see both the start and the end.
    for labels in product(KINDS, TROUBLE_CODES):
        waiting.add_metric(labels, reading.waiting.get(labels, 0))
    yield waiting
    yield GaugeMetricFamily(
        "imgflow_backlog_images",
        "Images that wait to be processed.",
        value=sum(reading.images.get((kind, "pending"), 0) for kind in KINDS),
    )
    yield GaugeMetricFamily(
        "imgflow_backlog_seconds",
        "For how long the image has waited that has waited longest.",
        value=reading.backlog_seconds,
    )
    yield GaugeMetricFamily(
        "imgflow_unreadable_messages",
        "Messages of the queue that could not be read and are kept.",
        value=reading.unreadable_messages,
    )


def supervision(pulse: Pulse) -> Iterator[Metric]:
    """Yield whether uploads are noticed and processed; no values if Dagster has never run."""
    ages = GaugeMetricFamily(
        "imgflow_last_tick_seconds", "Since the last good tick of a sensor.", labels=("sensor",)
    )
    silent = GaugeMetricFamily(
        "imgflow_sensor_silent",
        "Whether a sensor that is switched on has had no good tick for too long.",
        labels=("sensor",),
    )
    for sensor in pulse.sensors:
        if sensor.good_seconds is not None:
            ages.add_metric((sensor.name,), sensor.good_seconds)
        silent.add_metric((sensor.name,), float(sensor.is_silent))
    yield ages
    yield silent
    runs = GaugeMetricFamily("imgflow_last_run_seconds", "Since a run last ended well.")
    if pulse.run_seconds is not None:
        runs.add_metric((), pulse.run_seconds)
    yield runs


def run_counters(reading: Reading) -> Iterator[Metric]:
    """Yield what runs have counted; zero if nothing yet, so that rates include the first."""
    outcomes = CounterMetricFamily(
        counters.OUTCOMES,
        "What runs did with images: a noop is one on which nothing had to be done.",
        labels=("kind", "outcome"),
    )
    for kind, outcome in product(KINDS, OUTCOMES):
        one = series(counters.OUTCOMES, kind=kind, outcome=outcome)
        outcomes.add_metric((kind, outcome), reading.counters.get(one, 0))
    yield outcomes
    for name, text in RUN_COUNTERS.items():
        family = CounterMetricFamily(name, text, labels=("kind",))
        for kind in KINDS:
            family.add_metric((kind,), reading.counters.get(series(name, kind=kind), 0))
        yield family


def arrivals(reading: Reading) -> Metric:
    """Return the histogram of the seconds from noticing an upload to its row being ready."""
    family = HistogramMetricFamily(
        ARRIVAL_TO_READY, "From seeing a new upload to its image being ready.", labels=("kind",)
    )
    for kind in KINDS:
        buckets, total = cumulated(reading.counters, ARRIVAL_TO_READY, ARRIVAL_BOUNDS, kind=kind)
        family.add_metric((kind,), buckets, total)
    return family
