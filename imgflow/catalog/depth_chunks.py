"""Chunks of depth arrays as the database has them: binary rows of `COPY`, both ways."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgflow.catalog.database.copy import packed
from imgflow.depth.ordering import ResizedChunk

COPY = (
    'COPY depth_chunks (image_id, "array", chunk, first_row, row_count, depth_min, depth_max, '
    "depths, pixels, repeating) FROM STDIN (FORMAT BINARY)"
)
COPIED_AT_ONCE = 4 * 2**20

# From which share of pixels that equal a neighbour PostgreSQL compresses a chunk to a tenth or
# less. It looks back over so many bytes only.
REPEATING_SHARE = 0.9
LOOKED_BACK_BYTES = 4_095


class Chunk(NamedTuple):
    """A chunk as it was fetched; its arrays are views into the answer, and unaligned."""

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
        """Values of the first and the last colour; None where the array has no facts."""
        if not self.facts:
            return None
        low, high = json.loads(self.facts)
        return float(low), float(high)


def rows_of(chunks: Sequence[Chunk], first: int, last: int) -> NDArray[np.float32]:
    """Rows by their number in all chunks; only these are copied."""
    parts = []
    start = 0
    for chunk in chunks:
        parts.append(chunk.pixels[max(0, first - start) : max(0, last - start)])
        start += len(chunk.depths)
    # A copy is aligned, which what follows is faster with.
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
    """Write chunks in PostgreSQL's binary format, a few megabytes at a time."""
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
