"""Depth arrays in PostgreSQL: chunks of rows with their bounds; a frame reads only those it needs.

An array is written in one transaction under its own fingerprint, so it is visible only when
complete. It becomes the image's array when the row names it. Chunks are transferred with binary
`COPY`, whose format is in `catalog.database.copy`. Resampling is in `depth`.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import psycopg2
import sqlalchemy as sa
from numpy.typing import NDArray

from imgflow.catalog.database.copy import CopiedRows, StreamedRows, packed
from imgflow.catalog.database.engine import outages_in_words, retried
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow.depth.ordering import ResizedChunk
from imgflow.errors import ImgflowError

# Chunks as the database stores them: encoding and decoding binary rows of `COPY`.


COPY = (
    'COPY depth_chunks (image_id, "array", chunk, first_row, row_count, depth_min, depth_max, '
    "depths, pixels, repeating) FROM STDIN (FORMAT BINARY)"
)
COPIED_AT_ONCE = 4 * 2**20

# If at least this share of pixels equals a neighbour, PostgreSQL compresses a chunk to 10% or less.
# Its compression looks back this many bytes.
REPEATING_SHARE = 0.9
LOOKED_BACK_BYTES = 4_095


class Chunk(NamedTuple):
    """A chunk as it was fetched; its arrays are unaligned views into the answer."""

    image_id: int
    array: str
    facts: bytes
    depths: NDArray[np.float64]
    pixels: NDArray[np.float32]

    @classmethod
    def of(cls, *fields: memoryview | None) -> Chunk:
        """Decode a row of `depth_rows`."""
        image_id, array, value_range, depths, pixels = (field or b"" for field in fields)
        numbers = np.frombuffer(depths, "<f8")
        rows = np.frombuffer(pixels, "<f4") if pixels else np.empty(0, np.float32)
        (number,) = struct.unpack(">q", image_id)
        name, pixels_by_row = str(array, "utf-8"), rows.reshape(len(numbers), -1)
        return cls(number, name, bytes(value_range), numbers, pixels_by_row)

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values of the first and the last colour; None if the array has no facts."""
        if not self.facts:
            return None
        low, high = json.loads(self.facts)
        return float(low), float(high)


def rows_of(chunks: Sequence[Chunk], first: int, last: int) -> NDArray[np.float32]:
    """Rows `first` to `last` (excluded), counted across all chunks; only these are copied."""
    parts = []
    start = 0
    for chunk in chunks:
        parts.append(chunk.pixels[max(0, first - start) : max(0, last - start)])
        start += len(chunk.depths)
    # The copy is aligned, which makes later work on it faster.
    return np.concatenate(parts)


def repeats(pixels: NDArray[np.float32]) -> bool:
    """Whether compression pays: nearly every pixel equals the one before it or the one above."""
    bits = np.ascontiguousarray(pixels).view(np.uint32)  # NaN equals NaN
    before = bits[1:, 1:] == bits[1:, :-1]
    if 4 * bits.shape[1] <= LOOKED_BACK_BYTES:
        before |= bits[1:, 1:] == bits[:-1, 1:]
    return bool(np.count_nonzero(before) > REPEATING_SHARE * before.size)


def copy_blocks(
    image_id: int, array: str, chunks: Iterable[ResizedChunk]
) -> Iterator[tuple[io.BytesIO, int]]:
    """Encode chunks in PostgreSQL's binary format, in blocks of a few megabytes with their size."""
    rows: list[tuple[bytes | None, ...]] = []
    size = 0
    for chunk in chunks:
        depths = chunk.depths.astype("<f8", copy=False).tobytes()
        pixels = chunk.pixels.astype("<f4", copy=False).tobytes()
        row = (
            struct.pack(">q", image_id),
            array.encode(),
            struct.pack(">i", chunk.index),
            struct.pack(">q", chunk.first_row),
            struct.pack(">i", len(chunk.depths)),
            struct.pack(">d", chunk.depths[0]),
            struct.pack(">d", chunk.depths[-1]),
            depths,
            *((None, pixels) if repeats(chunk.pixels) else (pixels, None)),
        )
        rows.append(row)
        size += len(depths) + len(pixels)
        if size >= COPIED_AT_ONCE:
            yield io.BytesIO(packed(rows)), size
            rows, size = [], 0
    if rows:
        yield io.BytesIO(packed(rows)), size


# A single statement sees one state of the database, so the row's array and its chunks match. The
# migrations define the function.
FOUND = "FROM depth_rows(%s, %s, %s, %s, %s, %s, %s, %s)) TO STDOUT (FORMAT BINARY)"
READ = f"COPY (SELECT * {FOUND}"
READ_DEPTHS = f'COPY (SELECT image_id, "array", value_range, depths, NULL {FOUND}'

# A single statement sees all chunks of an array or none.
COPY_ARRAY = sa.text(
    """
    INSERT INTO depth_chunks (image_id, "array", chunk, first_row, row_count, depth_min, depth_max,
        depths, pixels, repeating)
    SELECT :to_id, :to, chunk, first_row, row_count, depth_min, depth_max, depths, pixels, repeating
    FROM depth_chunks WHERE image_id = :id AND "array" = :array
    """
)


class TooManyRows(ImgflowError):
    """An interval has more rows than the caller is willing to hold in memory."""

    def __init__(self, most_rows: int, low: float, high: float) -> None:
        super().__init__(f"more than {most_rows:,} rows lie between {low:g} and {high:g}")
        self.most_rows = most_rows


@dataclass(frozen=True, eq=False)
class Interval:
    """Rows of a depth image between two depths.

    Attributes:
        depths: float64 (n,), ascending.
        pixels: float32 (n, width).
        bytes_read: Number of bytes of arrays that came from the database.
        array: Name of the array; empty if none of its chunks touches the interval. The width is
            then unknown too, and `pixels` is (0, 0).
        image_id: Id of the image's row; 0 if `array` is empty.
        value_range: Values of the first and the last colour, from the array's facts.
    """

    depths: NDArray[np.float64]
    pixels: NDArray[np.float32]
    bytes_read: int
    array: str = ""
    image_id: int = 0
    value_range: tuple[float, float] | None = None


class DepthArrays:
    """The arrays of all depth images in a database."""

    def __init__(self, engine: sa.Engine) -> None:
        """Take an engine; nothing is connected yet."""
        self._engine = engine

    def store(self, image_id: int, array: str, chunks: Iterable[ResizedChunk]) -> int:
        """Write an array under its fingerprint, replacing what an earlier attempt left there.

        The row of the image must exist. If iterating the chunks raises, nothing is written.

        Returns:
            Number of bytes of depths and pixels.

        Raises:
            Trouble: The database did not answer; call again with all chunks.
        """
        written = 0
        with outages_in_words(self._engine), self._engine.begin() as connection:
            # If two workers process one image, the second waits and writes the same again.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (image_id,))
            connection.exec_driver_sql(
                'DELETE FROM depth_chunks WHERE image_id = %s AND "array" = %s', (image_id, array)
            )
            driver: Any = connection.connection
            with driver.cursor() as cursor:
                for block, size in copy_blocks(image_id, array, chunks):
                    cursor.copy_expert(COPY, block)
                    written += size
        return written

    def copy(self, image_id: int, array: str, *, to_image: int, to_array: str) -> int:
        """Copy an image's array to another image; both arrays are named by their fingerprints.

        Returns:
            Number of chunks; 0 if the array no longer exists.
        """

        def attempt() -> int:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (to_image,))
                connection.exec_driver_sql(
                    'DELETE FROM depth_chunks WHERE image_id = %s AND "array" = %s',
                    (to_image, to_array),
                )
                names = {"id": image_id, "array": array, "to_id": to_image, "to": to_array}
                return connection.execute(COPY_ARRAY, names).rowcount

        return retried(self._engine, attempt)

    def read(
        self,
        image: int | str,
        depth_min: float | None = None,
        depth_max: float | None = None,
        *,
        source: str | None = None,
        most_rows: int | None = None,
        most_pixels: int | None = None,
        depths_only: bool = False,
    ) -> Interval:
        """Read the rows of the current array between two depths, inclusive, in one round trip.

        Args:
            image: Id of a row, or a key.
            depth_min: Smallest depth; None for no bound.
            depth_max: Largest depth; None for no bound.
            source: Canonical URL of the image's source; required if `image` is a key.
            most_rows: Maximum number of rows; None for no limit.
            most_pixels: Maximum number of pixels; None for no limit.
            depths_only: Do not read the pixels, whose shape is then (n, 0).

        Returns:
            The interval; it has no rows if there are none, or no array.

        Raises:
            TooManyRows: There are more than `most_rows` or `most_pixels`.
        """
        # Convert to Python's floats: the driver would write numpy's into the statement by name.
        low = -math.inf if depth_min is None else float(depth_min)
        high = math.inf if depth_max is None else float(depth_max)
        named = (image, None) if isinstance(image, int) else (None, image)
        # The first and the last chunk may contribute one row each, and one more chunk shows that
        # there are too many.
        asked = (source, *named, low, high, most_rows, most_pixels, CHUNK_ROWS)
        statement = READ_DEPTHS if depths_only else READ

        def attempt() -> list[Chunk]:
            copied = CopiedRows()
            self._copy(statement, asked, copied)
            return [Chunk.of(*row) for row in copied]

        chunks = retried(self._engine, attempt)
        if not chunks:
            return Interval(np.empty(0), np.empty((0, 0), np.float32), 0)
        depths = np.concatenate([chunk.depths for chunk in chunks])
        # Chunks are in order of depth, so the rows of the interval are consecutive.
        first = int(np.searchsorted(depths, low, "left"))
        last = max(first, int(np.searchsorted(depths, high, "right")))
        most = _most_rows(most_rows, most_pixels, width=chunks[0].pixels.shape[1] or 1)
        if most is not None and (last - first > most or len(chunks) == most // CHUNK_ROWS + 3):
            raise TooManyRows(most, low, high)
        size = sum(chunk.depths.nbytes + chunk.pixels.nbytes for chunk in chunks)
        return Interval(
            depths[first:last],
            rows_of(chunks, first, last),
            size,
            chunks[0].array,
            chunks[0].image_id,
            chunks[0].value_range,
        )

    def scan(
        self,
        image: int | str,
        depth_min: float | None,
        depth_max: float | None,
        *,
        source: str,
        restart: Callable[[], None],
        take: Callable[[Interval], None],
    ) -> None:
        """Read the rows that `read` would, any number of them, in the memory of one chunk.

        `take` is called with consecutive rows and must not keep their arrays. `restart` is called
        before the first rows, and again after a connection broke: then all rows come again,
        possibly from another array.
        """
        low = -math.inf if depth_min is None else float(depth_min)
        high = math.inf if depth_max is None else float(depth_max)
        named = (image, None) if isinstance(image, int) else (None, image)
        asked = (source, *named, low, high, None, None, CHUNK_ROWS)

        def take_chunk(fields: tuple[memoryview | None, ...]) -> None:
            chunk = Chunk.of(*fields)
            first = int(np.searchsorted(chunk.depths, low, "left"))
            last = int(np.searchsorted(chunk.depths, high, "right"))
            if first < last:
                depths, pixels = chunk.depths[first:last], chunk.pixels[first:last]
                size = len(fields[-1] or b"")
                take(Interval(depths, pixels, size, chunk.array, chunk.image_id, chunk.value_range))

        def attempt() -> None:
            restart()
            self._copy(READ, asked, StreamedRows(take_chunk))

        retried(self._engine, attempt)

    def _copy(
        self, statement: str, asked: tuple[Any, ...], target: CopiedRows | StreamedRows
    ) -> None:
        """Run a statement on the driver itself: SQLAlchemy takes as long as the rows do."""
        pooled = self._engine.raw_connection()
        driver: Any = pooled.dbapi_connection
        try:
            # A transaction around one statement would cost two more round trips.
            driver.autocommit = True
            with driver.cursor() as cursor:
                cursor.copy_expert(cursor.mogrify(statement, asked), target)
            driver.autocommit = False
        except BaseException as error:
            pooled.invalidate(error)
            if type(error) is psycopg2.DatabaseError:
                # The driver raises this if the connection is lost during a COPY.
                raise psycopg2.OperationalError(str(error)) from error
            raise
        finally:
            pooled.close()

    def drop_superseded(self, image_ids: Sequence[int]) -> None:
        """Delete the stale arrays of these images: those that their rows do not name."""
        statement = sa.text(
            """
            DELETE FROM depth_chunks AS c USING images AS i
            WHERE c.image_id = i.id AND i.id = ANY(:ids) AND i.state IN ('ready', 'rejected',
            'deleted') AND c."array" IS DISTINCT FROM (i.outputs -> 'resized' ->> 'name')
            """
        ).bindparams(sa.bindparam("ids", list(image_ids), sa.ARRAY(sa.BigInteger)))

        def attempt() -> None:
            with self._engine.begin() as connection:
                connection.execute(statement)

        retried(self._engine, attempt)


def _most_rows(most_rows: int | None, most_pixels: int | None, *, width: int) -> int | None:
    limits = [most_rows, None if most_pixels is None else most_pixels // width]
    return min((limit for limit in limits if limit is not None), default=None)
