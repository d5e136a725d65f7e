"""Frames of more rows than there is room for: neighbouring rows averaged while they stream by."""

from __future__ import annotations

from imgflow.api.backend.connections import Connections
from imgflow.api.backend.depth_reads import MOST_PIXELS, Bounds, find_array
from imgflow.api.http.keys import id_of, key_of
from imgflow.api.http.problems import Refused
from imgflow.catalog.postgres.depth_arrays import Interval
from imgflow.depth.preview import PreviewBuilder

MOST_ROWS = 8_192
# Sums of pixels and of missing ones take 32 bytes each for twice the rows.
MOST_AVERAGED = MOST_PIXELS // 8


class _Averages:
    """What is kept of the rows that came."""

    def __init__(self, width: int, most_rows: int) -> None:
        self._size = (width, most_rows)
        self.restart()

    def restart(self) -> None:
        self.rows = 0
        self.builder = PreviewBuilder(self._size)
        self.first = self.last = float("nan")
        self.newest: Interval | None = None

    def take(self, part: Interval) -> None:
        if not self.rows:
            self.first = float(part.depths[0])
        self.last = float(part.depths[-1])
        self.rows += len(part.depths)
        self.builder.add(part.pixels)
        self.newest = part


def average_rows(
    connections: Connections, named: str, bounds: Bounds, most_rows: int
) -> tuple[Interval, int]:
    """Average the rows of an interval, in memory that does not depend on their number.

    Returns:
        The averages, with the first and the last depth of all rows; and the number of rows.

    Raises:
        Refused: there is no such image or array, there are no rows in the interval, or averages of
            so many rows take too much memory.
    """
    array = find_array(connections, named, bounds)
    if most_rows * array.width > MOST_AVERAGED:
        most = MOST_AVERAGED // array.width
        raise Refused("too_many_rows", f"max_rows is {most:,} at most here.", most_rows=most)
    averages = _Averages(array.width, most_rows)
    connections.arrays.scan(
        id_of(named) or key_of(named) or array.image.id,
        bounds.low,
        bounds.high,
        source=connections.catalog.source,
        restart=averages.restart,
        take=averages.take,
    )
    newest = averages.newest
    if newest is None:
        raise Refused("no_rows", "The interval lies in a gap between two rows; take a wider one.")
    found = Interval(
        depths=newest.depths[[0, -1]].copy(),
        pixels=averages.builder.means(),
        bytes_read=0,
        array=newest.array,
        image_id=newest.image_id,
        value_range=newest.value_range,
    )
    found.depths[:] = averages.first, averages.last
    return found, averages.rows
