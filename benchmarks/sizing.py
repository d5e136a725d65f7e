"""The arithmetic of docs/scaling.md: database, requests, workers, connections, storage and cost.

These are pure functions of a load. Measured figures and their origin are in `Measured`; prices are
parameters. `python -m benchmarks.sizing` rewrites the tables of the document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
TABLES = re.compile(r"(<!-- sizing (\w+): .*? -->\n)(.*?)(<!-- end of sizing -->)", re.DOTALL)

KIB, MB, GB = 1_024, 10**6, 10**9
DAY = 86_400
MONTH_DAYS = 30


@dataclass(frozen=True)
class Measured:
    """What an image costs, for photographs with grayscale, thumbnail and row.

    Attributes:
        row: Bytes of its row, with indexes (`benchmarks/database_bytes.py`, 2,000 images).
        partition: Bytes of its partition in Dagster.
        kept: Bytes of its newest events, which stay.
        planned: Bytes of its planned events, deleted after `IMGFLOW_KEEP_EVENTS_DAYS`.
        gray_bytes_a_pixel: Bytes per pixel of a grayscale JPEG, the mean of 22 photographs.
        thumbnail: Bytes of a thumbnail, the mean of the same photographs.
        rate: Images of 12 megapixels per second and worker of two cores (docs/performance.md).
        page_seconds: Seconds for a listing's page of 1,000 objects: about 0.12 for S3 (assumed) and
            0.03 for imgflow (docs/performance.md).
        run_connections: Maximum number of a run's connections to the database.
        depth_overhead: Ratio of the bytes of a stored depth image to 4 per pixel and 8 per depth.
    """

    row: int = 1_800
    partition: int = 150
    kept: int = 12_100
    planned: int = 4_200
    gray_bytes_a_pixel: float = 0.165
    thumbnail: int = 25_600
    rate: float = 19.0
    page_seconds: float = 0.15
    run_connections: int = 6
    depth_overhead: float = 1.05


MEASURED = Measured()

# Requests per image: one read, two writes, and its share of a listing's page.
READS, WRITES = 1, 2
PAGE = 1_000
# Connections of an API process: for rows, and for depth frames with the overflow of their pool.
API_CONNECTIONS = 20 + 4


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars: list prices of us-east-1 as of early 2025; put yours here.

    Storage is per GB and month, requests and transitions are per thousand, retrieval is per GB.
    """

    standard: float = 0.023
    standard_ia: float = 0.0125
    glacier_ir: float = 0.004
    put: float = 0.005
    get: float = 0.0004
    to_standard_ia: float = 0.01
    to_glacier_ir: float = 0.02
    retrieve_glacier_ir: float = 0.03
    sqs_million: float = 0.40
    database_gb: float = 0.115
    worker_hour: float = 0.085  # two cores and 4 GB


@dataclass(frozen=True)
class Load:
    """How many images there are, and how many arrive.

    Attributes:
        images: Total number of photographs.
        arrivals: New photographs per day.
        megapixels: Megapixels of each photograph.
        upload: Bytes of each upload.
        hot: Value of `IMGFLOW_HOT_PARTITIONS`.
        keep_days: Value of `IMGFLOW_KEEP_EVENTS_DAYS`.
    """

    images: int
    arrivals: int
    megapixels: float = 12.0
    upload: int = 4 * MB
    hot: int = 100_000
    keep_days: int = 30

    @property
    def gray(self) -> int:
        """Bytes of a grayscale image."""
        return round(self.megapixels * MB * MEASURED.gray_bytes_a_pixel)


def database(load: Load) -> dict[str, float]:
    """Return the bytes in PostgreSQL, by part."""
    return {
        "rows": load.images * MEASURED.row,
        "events that stay": load.images * MEASURED.kept,
        "planned events": load.arrivals * load.keep_days * MEASURED.planned,
        "partitions": min(load.images, load.hot) * MEASURED.partition,
    }


def depth_bytes(rows: int, width: int = 150) -> float:
    """Return the bytes in PostgreSQL of a depth image with this many rows."""
    return rows * (4 * width + 8) * MEASURED.depth_overhead


def first_load_days(load: Load, workers: int) -> float:
    """Return the days in which this many workers process all images."""
    return load.images / (workers * MEASURED.rate * DAY)


def busy_share(load: Load) -> float:
    """Return the share of one worker's time that arrivals take."""
    return load.arrivals / (MEASURED.rate * DAY)


@dataclass(frozen=True)
class Listing:
    """How the sensor lists: `IMGFLOW_TICK_PAGES` every `IMGFLOW_SENSOR_SECONDS` (minimum 5)."""

    pages: int
    seconds: float

    def round_seconds(self, images: int) -> float:
        """Return the seconds that listing everything once takes."""
        pages = -(-images // PAGE)
        ticks = -(-pages // self.pages)
        return ticks * max(self.seconds, min(pages, self.pages) * MEASURED.page_seconds)

    def monthly_cost(self, images: int, prices: Prices) -> float:
        """Return the dollars per month for listing round after round."""
        rounds = MONTH_DAYS * DAY / self.round_seconds(images)
        return rounds * -(-images // PAGE) / 1_000 * prices.put


# The listing alone, and the listing in addition to notifications.
ALONE = Listing(pages=20, seconds=5.0)
BESIDE = Listing(pages=200, seconds=60.0)


def connections(api: int, workers: int) -> int:
    """Return the maximum of connections; sensors, daemon, webserver and code server take 20."""
    return 20 + api * API_CONNECTIONS + workers * MEASURED.run_connections


def requests_cost(images: int, prices: Prices) -> float:
    """Return the dollars for S3 requests to process images once, without transitions."""
    return images / 1_000 * (READS * prices.get + WRITES * prices.put) + images / PAGE**2 * (
        prices.put  # a page of a listing costs as much as a write
    )


def queue_cost(images: int, prices: Prices) -> float:
    """Return the dollars for notifications: per image one sent, 0.1 received and 0.1 deleted."""
    return images * 1.2 / 1e6 * prices.sqs_million


def storage_cost(load: Load, prices: Prices) -> dict[str, float]:
    """Return the dollars per month: all in STANDARD, and moved as in deploy/aws."""
    originals, gray = load.images * load.upload / GB, load.images * load.gray / GB
    thumbnails = load.images * MEASURED.thumbnail / GB
    return {
        "STANDARD": (originals + gray + thumbnails) * prices.standard,
        "cold": originals * prices.glacier_ir
        + gray * prices.standard_ia
        + thumbnails * prices.standard,
    }


def payback_months(size: int, cold: float, move: float, prices: Prices) -> float:
    """Return the months after which moving an object has paid for its transition.

    Args:
        size: Bytes of the object.
        cold: Dollars per GB and month in the colder class.
        move: Dollars for a thousand transitions.
        prices: Prices, of which that of STANDARD is used.
    """
    return move / 1_000 / (size / GB * (prices.standard - cold))


LOADS = {
    "1 million": Load(1_000_000, 5_000),
    "10 million": Load(10_000_000, 50_000),
    "100 million": Load(100_000_000, 500_000),
}
# Numbers of API processes and workers that docs/scaling.md recommends.
PROCESSES = {"1 million": (1, 2), "10 million": (2, 4), "100 million": (4, 16)}


def _table(rows: Mapping[str, list[str]]) -> str:
    lines = [f"| | {' | '.join(LOADS)} |", f"|{' --- |' * (len(LOADS) + 1)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def _gigabytes(value: float) -> str:
    return f"{value / GB:,.1f} GB" if value < 1_000 * GB else f"{value / GB / 1_000:,.2f} TB"


def _duration(seconds: float) -> str:
    for unit, length in (("d", DAY), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def database_table() -> str:
    """Return the table of bytes in PostgreSQL by part."""
    parts = {name: database(load) for name, load in LOADS.items()}
    rows = {part: [_gigabytes(parts[name][part]) for name in LOADS] for part in parts["1 million"]}
    rows["**all of it**"] = [_gigabytes(sum(parts[name].values())) for name in LOADS]
    return _table(rows)


def work_table() -> str:
    """Return the table of workers, listing and connections."""
    loads = LOADS.items()
    return _table(
        {
            "arrivals a day": [f"{load.arrivals:,}" for _, load in loads],
            "share of one worker that they take": [f"{busy_share(load):.1%}" for _, load in loads],
            "workers advised": [str(PROCESSES[name][1]) for name in LOADS],
            "all of it for the first time with these": [
                _duration(first_load_days(load, PROCESSES[name][1]) * DAY) for name, load in loads
            ],
            "a round of the listing, 20 pages each 5 s": [
                _duration(ALONE.round_seconds(load.images)) for _, load in loads
            ],
            "the same, 200 pages each 60 s": [
                _duration(BESIDE.round_seconds(load.images)) for _, load in loads
            ],
            "requests of a round": [f"{-(-load.images // PAGE):,}" for _, load in loads],
            "API processes advised": [str(PROCESSES[name][0]) for name in LOADS],
            "connections, at most": [str(connections(*PROCESSES[name])) for name in LOADS],
        }
    )


def cost_table(prices: Prices = Prices()) -> str:
    """Return the table of dollars, once and per month."""
    loads = list(LOADS.values())
    stored = [storage_cost(load, prices) for load in loads]
    month = [load.arrivals * MONTH_DAYS for load in loads]
    work = [load.images / MEASURED.rate / 3_600 * prices.worker_hour for load in loads]
    moves = [load.images / 1_000 * (prices.to_glacier_ir + prices.to_standard_ia) for load in loads]

    def dollars(values: list[float]) -> list[str]:
        return [f"{value:,.0f}" if value >= 10 else f"{value:,.2f}" for value in values]

    return _table(
        {
            "once: requests of S3": dollars([requests_cost(load.images, prices) for load in loads]),
            "once: notifications": dollars([queue_cost(load.images, prices) for load in loads]),
            "once: workers": dollars(work),
            "once: transitions to the cold classes": dollars(moves),
            "a month: requests and notifications of arrivals": dollars(
                [requests_cost(images, prices) + queue_cost(images, prices) for images in month]
            ),
            "a month: listing, 20 pages each 5 s": dollars(
                [ALONE.monthly_cost(load.images, prices) for load in loads]
            ),
            "a month: listing, 200 pages each 60 s": dollars(
                [BESIDE.monthly_cost(load.images, prices) for load in loads]
            ),
            "a month: storage, all in STANDARD": dollars([one["STANDARD"] for one in stored]),
            "a month: storage, cold as in deploy/aws": dollars([one["cold"] for one in stored]),
            "a month: the database's disk": dollars(
                [sum(database(load).values()) / GB * prices.database_gb for load in loads]
            ),
        }
    )


def payback_table(prices: Prices = Prices()) -> str:
    """Return the table of months after which an object's transition has paid for itself."""
    sizes = {"128 KiB": 128 * KIB, "500 KB": 500_000, "2 MB": 2 * MB, "4 MB": 4 * MB}
    lines = [f"| to | {' | '.join(sizes)} |", f"|{' --- |' * (len(sizes) + 1)}"]
    for name, cold, move in (
        ("STANDARD_IA", prices.standard_ia, prices.to_standard_ia),
        ("GLACIER_IR", prices.glacier_ir, prices.to_glacier_ir),
    ):
        cells = [f"{payback_months(size, cold, move, prices):.1f}" for size in sizes.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


MAKERS = {
    "database": database_table,
    "work": work_table,
    "cost": cost_table,
    "payback": payback_table,
}


def rewritten(text: str) -> str:
    """Return the document with newly computed tables."""
    return TABLES.sub(lambda found: found[1] + MAKERS[found[2]]() + found[4], text)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
