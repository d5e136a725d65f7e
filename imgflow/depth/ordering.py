"""Turns a file's bytes into resized rows in ascending order of depth, in chunks of fixed size.

Ascending files keep their order; all others are sorted by depth, with rows of equal depth in the
order of the file. No row is dropped.

Nearly all files ascend and stream through: a chunk comes out as soon as its rows are read. Other
files go through a temporary file. The first batch (some thousand rows) usually shows which kind it
is; if disorder only appears after chunks were yielded, `OutOfOrder` is raised, and iterating again
re-reads the file and sorts it. Checking the depths first would read every file from the store
twice.

Reading the rows is in `imgflow.depth.readers`, resizing in `imgflow.depth.resampling`. A consumer
that writes in one transaction:

    image = ResizedDepth(open_stream, name, recipe, limits, spool_dir)
    try:
        copy_into_database(image)       # for chunk in image: …
    except OutOfOrder:
        roll_back()
        copy_into_database(image)
    image.facts
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.depth_recipe import CHUNK_ROWS, DepthRecipe
from imgflow.depth.facts import DepthFacts, RowOrder, SourceTally, StepTally
from imgflow.depth.limits import DepthLimits
from imgflow.depth.readers.reading import read_depth_rows
from imgflow.depth.readers.rows import DepthRows, Float32, Float64
from imgflow.depth.resampling import FIRST_OVERSHOOTING_ORDER, resize_width
from imgflow.errors import ImgflowError

# The spool: a temporary file of resized rows, written in file order and read in order of depth.
#
# Uses plain reads, since the pages of a memory map would count as memory of the process.


_SLAB_FACTOR = 4  # reading up to four times the rows at once is cheaper than reading one by one


class RowSpool:
    """Rows on disk, and their depths in memory (8 bytes a row, 20 while they are read back).

    The file has no name if the system allows that, so that it vanishes even if the process is
    killed.
    """

    def __init__(self, width: int, directory: Path | None) -> None:
        self._row_bytes = 4 * width
        self._width = width
        # `__exit__` closes it.
        self._file = tempfile.TemporaryFile(dir=directory, prefix="imgflow-depth-")  # noqa: SIM115
        self._depths: list[Float64] = []

    def __enter__(self) -> "RowSpool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, depths: Float64, pixels: Float32) -> None:
        """Add rows: float64 (n,) and float32 (n, width)."""
        self._depths.append(depths)
        self._file.write(np.ascontiguousarray(pixels).data)

    def sorted_depths(self) -> tuple[Float64, NDArray[np.int64]]:
        """All depths in file order, and the stable permutation that sorts them."""
        self._file.flush()
        depths = np.concatenate(self._depths)
        self._depths.clear()
        return depths, np.argsort(depths, kind="stable")

    def rows(self, numbers: NDArray[np.int64]) -> Float32:
        """Read rows by their number in the file, in the given order, as float32 (n, width)."""
        first, last = int(numbers.min()), int(numbers.max())
        if last - first < _SLAB_FACTOR * len(numbers):
            return self._slab(first, last + 1)[numbers - first]
        found = np.empty((len(numbers), self._width), dtype=np.float32)
        for place, number in enumerate(numbers.tolist()):
            found[place] = self._slab(number, number + 1)[0]
        return found

    def _slab(self, first: int, stop: int) -> Float32:
        size = (stop - first) * self._row_bytes
        data = os.pread(self._file.fileno(), size, first * self._row_bytes)
        return np.frombuffer(data, dtype=np.float32).reshape(stop - first, self._width)


# Chunks: resizing and ordering.

_RESIZED_AT_ONCE = 2**18  # values, 8 bytes each while they are resized


class OutOfOrder(ImgflowError):
    """The depths stopped ascending after chunks were yielded: discard these and iterate again."""


@dataclass(frozen=True, eq=False)
class ResizedChunk:
    """Consecutive resized rows.

    Attributes:
        index: Number of the chunk, from 0.
        first_row: Number of its first row, from 0: `index * CHUNK_ROWS`.
        depths: float64 (n,), ascending; n is `CHUNK_ROWS` in all chunks but the last.
        pixels: float32 (n, width), C order.
    """

    index: int
    first_row: int
    depths: Float64
    pixels: Float32


class ResizedDepth:
    """A depth image as an iterable of chunks; each iteration reads the file from the start.

    Iterating raises `Rejected` if the file is not a depth image (possibly after some chunks),
    `OutOfOrder` at most once, and whatever `open_stream` raises.
    """

    def __init__(
        self,
        open_stream: Callable[[], Iterable[bytes]],
        name: str,
        recipe: DepthRecipe,
        limits: DepthLimits | None = None,
        spool_dir: Path | None = None,
    ) -> None:
        """Store the arguments; nothing is opened yet.

        Args:
            open_stream: Opens the file again at each call, and returns the same bytes each time.
            name: File name or object key; its suffix chooses the reader.
            recipe: Decides how rows are resized.
            limits: Files beyond these are rejected.
            spool_dir: Folder for the temporary file, 4 bytes a pixel; None for the system's.
        """
        self._open_stream = open_stream
        self._name = name
        self._recipe = recipe
        self._limits = limits or DepthLimits()
        self._spool_dir = spool_dir
        self._must_sort = False
        self._facts: DepthFacts | None = None

    @property
    def facts(self) -> DepthFacts:
        """Facts on the entire image, available once an iteration has finished."""
        if self._facts is None:
            raise RuntimeError("facts are known after the last chunk")
        return self._facts

    def __iter__(self) -> Iterator[ResizedChunk]:
        batches = read_depth_rows(self._open_stream(), self._name, self._limits)
        first = next(batches, None)
        source = SourceTally()
        overshoots = (
            self._recipe.order >= FIRST_OVERSHOOTING_ORDER
            and first is not None
            and first.pixels.shape[1] != self._recipe.width
        )
        if self._must_sort or overshoots or (first is not None and not _ascends(first.depths)):
            return self._sorted(first, batches, source)
        return self._streamed(first, batches, source)

    def _resized(
        self, first: DepthRows | None, batches: Iterator[DepthRows], source: SourceTally
    ) -> Iterator[tuple[Float64, Float32]]:
        recipe = self._recipe
        batch = first
        while batch is not None:
            source.add(batch)
            self._limits.check_rows(source.rows)  # readers may not have checked
            # A batch of a narrow image may have a million rows, which become much wider.
            step = max(1, _RESIZED_AT_ONCE // max(recipe.width, batch.pixels.shape[1]))
            for start in range(0, len(batch), step):
                pixels = resize_width(
                    batch.pixels[start : start + step],
                    recipe.width,
                    order=recipe.order,
                    anti_aliasing=recipe.anti_aliasing,
                )
                yield batch.depths[start : start + step], pixels
            batch = next(batches, None)

    def _streamed(
        self, first: DepthRows | None, batches: Iterator[DepthRows], source: SourceTally
    ) -> Iterator[ResizedChunk]:
        steps = StepTally()
        chunks = _Rechunker(self._recipe.width)
        deepest = -np.inf
        for depths, pixels in self._resized(first, batches, source):
            if depths[0] < deepest or not _ascends(depths):
                self._must_sort = True
                raise OutOfOrder(f"the depths of {self._name!r} do not ascend")
            deepest = depths[-1]
            steps.add(depths)
            yield from chunks.add(depths, pixels)
        yield from chunks.rest()
        self._facts = steps.facts(source, self._recipe.width, "ascending")

    def _sorted(
        self, first: DepthRows | None, batches: Iterator[DepthRows], source: SourceTally
    ) -> Iterator[ResizedChunk]:
        steps = StepTally()
        with RowSpool(self._recipe.width, self._spool_dir) as spool:
            for depths, pixels in self._resized(first, batches, source):
                spool.append(depths, pixels)
            in_file, by_depth = spool.sorted_depths()
            was_sorted = _order(in_file)
            for index, start in enumerate(range(0, len(by_depth), CHUNK_ROWS)):
                numbers = by_depth[start : start + CHUNK_ROWS]
                depths = in_file[numbers]
                steps.add(depths)
                pixels = spool.rows(numbers)
                if self._recipe.order >= FIRST_OVERSHOOTING_ORDER:
                    pixels = np.clip(pixels, source.value_min, source.value_max)
                yield ResizedChunk(index, start, depths, pixels)
        self._facts = steps.facts(source, self._recipe.width, was_sorted)


class _Rechunker:
    """Cuts batches of any length into chunks of `CHUNK_ROWS`."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._index = 0
        self._held: list[tuple[Float64, Float32]] = []
        self._rows = 0

    def add(self, depths: Float64, pixels: Float32) -> Iterator[ResizedChunk]:
        start = 0
        while start < len(depths):
            stop = min(len(depths), start + CHUNK_ROWS - self._rows)
            self._held.append((depths[start:stop], pixels[start:stop]))
            self._rows += stop - start
            start = stop
            if self._rows == CHUNK_ROWS:
                yield from self.rest()

    def rest(self) -> Iterator[ResizedChunk]:
        if self._held:
            depths, pixels = zip(*self._held, strict=True)
            yield ResizedChunk(
                self._index, self._index * CHUNK_ROWS, _joined(depths), _joined(pixels)
            )
            self._index += 1
            self._held.clear()
            self._rows = 0


def _joined(parts: tuple[Float32, ...] | tuple[Float64, ...]) -> Any:
    # Even a single part is copied, since it may be a view that keeps megabytes of a batch alive.
    return np.concatenate(parts)


def _ascends(depths: Float64) -> bool:
    return bool((depths[1:] >= depths[:-1]).all())


def _order(depths: Float64) -> RowOrder:
    if _ascends(depths):
        return "ascending"
    return "descending" if _ascends(depths[::-1]) else "unsorted"
