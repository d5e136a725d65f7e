"""Facts on a depth image, known after its last row: counts, ranges, gaps, and notes for people.

Statistics of an interval are in `imgflow.depth.statistics`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.missing import has_missing
from imgflow.depth.readers.rows import DepthRows, Float32, Float64
from imgflow.errors import Rejected

RowOrder = Literal["ascending", "descending", "unsorted"]

GAP_STEPS = 1.5
"""A step between neighbouring depths of more than this many median steps is a gap."""
MOST_MISSING_LINES = 10
_EIGHT_BIT_MAX = 255.0


@dataclass(frozen=True)
class DepthFacts:
    """Facts on one depth image; depths are in the file's own unit, values are those of the file.

    Attributes:
        rows: Number of rows with values.
        columns: Number of pixel columns in the file.
        width: Pixels in a resized row.
        depth_min: Minimum depth, which the first resized row has.
        depth_max: Maximum depth, which the last resized row has.
        value_min: Minimum pixel of the file.
        value_max: Maximum pixel of the file.
        values_are_whole: Whether every pixel of the file is a whole number.
        missing_pixels: Number of empty or NaN pixels in the file; the values above ignore them.
        rows_with_missing: Number of rows with at least one of them.
        missing_lines: Lines of the first of these rows, at most `MOST_MISSING_LINES`.
        empty_rows_dropped: Number of entirely empty rows.
        duplicates: Number of rows with the depth of the previous row, in order of depth; all are
            kept.
        was_sorted: Order of the depths in the file; resized rows always ascend.
        step_median: Median step between different depths; 0 if there is only one depth.
        gaps: Number of steps of more than `GAP_STEPS` medians.
        largest_step: Largest step between neighbouring depths.
        first_lines: Line of the file (row of a table or picture) with the first irregularity of
            each kind found: `empty_row`; `missing_pixel`; `order`, a depth below the previous one;
            `duplicate`, the depth of the previous row in the file.
        notes: What a person should know, one sentence each; empty for a regular image.
    """

    rows: int
    columns: int
    width: int
    depth_min: float
    depth_max: float
    value_min: float
    value_max: float
    values_are_whole: bool
    missing_pixels: int
    rows_with_missing: int
    missing_lines: tuple[int, ...]
    empty_rows_dropped: int
    duplicates: int
    was_sorted: RowOrder
    step_median: float
    gaps: int
    largest_step: float
    first_lines: dict[str, int]
    notes: tuple[str, ...]

    @property
    def value_range(self) -> tuple[float, float]:
        """Values of the first and the last colour, see `display_range`."""
        return display_range(self.value_min, self.value_max, whole=self.values_are_whole)


def display_range(value_min: float, value_max: float, *, whole: bool) -> tuple[float, float]:
    """Values of a colour map's first and last colour, the same for all frames of an image.

    0 to 255 for eight-bit pixels, so that images are comparable; otherwise the image's own range.
    """
    if whole and value_min >= 0 and value_max <= _EIGHT_BIT_MAX:
        return 0.0, _EIGHT_BIT_MAX
    return value_min, value_max


class SourceTally:
    """Counts over the rows, in the order of the file."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns = 0
        self.empty_rows = 0
        self.value_min = float("inf")
        self.value_max = float("-inf")
        self.values_are_whole = True
        self.missing_pixels = 0
        self.rows_with_missing = 0
        self.missing_lines: tuple[int, ...] = ()
        self.first_lines: dict[str, int] = {}
        self._last_depth = float("nan")

    def add(self, batch: DepthRows) -> None:
        """Count a batch in the order it was read."""
        self.rows += len(batch)
        self.columns = batch.pixels.shape[1]
        self.empty_rows += batch.empty_rows
        lines = batch.lines
        if lines is None:
            lines = batch.first_line + np.arange(len(batch))
        if batch.empty_rows:
            self._note("empty_row", _first_missing(lines, batch.first_line))
        if not len(batch):
            return
        # Before the first row the last depth is NaN, which is neither below nor equal.
        before = np.concatenate([[self._last_depth], batch.depths[:-1]])
        for name, is_met in (
            ("order", batch.depths < before),
            ("duplicate", batch.depths == before),
        ):
            if is_met.any():
                self._note(name, int(lines[is_met.argmax()]))
        self._last_depth = float(batch.depths[-1])
        self._add_values(batch.pixels, lines)

    def _add_values(self, pixels: Float32, lines: NDArray[np.int64]) -> None:
        if has_missing(pixels):
            missing = np.isnan(pixels)
            rows = missing.any(axis=1)
            self.missing_pixels += int(missing.sum())
            self.rows_with_missing += int(rows.sum())
            found = lines[rows][:MOST_MISSING_LINES].tolist()
            self.missing_lines = (*self.missing_lines, *found)[:MOST_MISSING_LINES]
            self._note("missing_pixel", self.missing_lines[0])
            pixels = pixels[~missing]
            if not pixels.size:
                return
        self.value_min = min(self.value_min, float(pixels.min()))
        self.value_max = max(self.value_max, float(pixels.max()))
        if self.values_are_whole:
            self.values_are_whole = bool((np.rint(pixels) == pixels).all())

    def _note(self, name: str, line: int) -> None:
        self.first_lines.setdefault(name, line)


def _first_missing(lines: NDArray[np.int64], first_line: int) -> int:
    """The first line of a batch without a row; if none is missing, the line after the batch."""
    is_later = lines != first_line + np.arange(len(lines))
    return first_line + int(is_later.argmax() if is_later.any() else len(lines))


class StepTally:
    """Steps between neighbouring depths, in ascending order.

    Keeps 4 bytes a row; 8 if steps overflow float32, or round to 0 in it.
    """

    def __init__(self) -> None:
        self._steps: list[Float32 | Float64] = []
        self.depth_min = float("nan")
        self.depth_max = float("nan")

    def add(self, depths: Float64) -> None:
        """Count the next chunk's depths, float64 (n,).

        Raises:
            Rejected: `infinite_value`, if depths are too far apart to compute steps or intervals.
        """
        if not self._steps:
            self.depth_min = self.depth_max = float(depths[0])
        last = float(depths[-1])
        if not math.isfinite(last - self.depth_min):
            raise Rejected(
                "infinite_value",
                f"the depths {self.depth_min:g} and {last:g} are further apart than float64 holds",
            )
        steps = np.diff(depths, prepend=self.depth_max)
        with np.errstate(over="ignore", under="ignore"):  # checked below
            short = steps.astype(np.float32)
        is_kept = bool((np.isfinite(short) & ((short > 0) == (steps > 0))).all())
        self._steps.append(short if is_kept else steps)
        self.depth_max = last

    def facts(self, source: SourceTally, width: int, was_sorted: RowOrder) -> DepthFacts:
        """Combine both tallies after the last row.

        Raises:
            Rejected: Its code is `no_rows` or `no_pixels`.
        """
        if not source.rows:
            raise Rejected("no_rows", "there is no row with values")
        if source.missing_pixels == source.rows * source.columns:
            raise Rejected("no_pixels", f"every pixel of the {source.rows} rows is missing")
        steps = cast("NDArray[np.floating[Any]]", np.concatenate(self._steps)[1:])
        self._steps.clear()
        rising = steps[steps > 0]
        median = _rounded(np.median(rising)) if len(rising) else 0.0
        gaps = int((rising > GAP_STEPS * median).sum())
        largest = _rounded(rising.max()) if len(rising) else 0.0
        duplicates = len(steps) - len(rising)
        return DepthFacts(
            rows=source.rows,
            columns=source.columns,
            width=width,
            depth_min=self.depth_min,
            depth_max=self.depth_max,
            value_min=source.value_min,
            value_max=source.value_max,
            values_are_whole=source.values_are_whole,
            missing_pixels=source.missing_pixels,
            rows_with_missing=source.rows_with_missing,
            missing_lines=source.missing_lines,
            empty_rows_dropped=source.empty_rows,
            duplicates=duplicates,
            was_sorted=was_sorted,
            step_median=median,
            gaps=gaps,
            largest_step=largest,
            first_lines=source.first_lines,
            notes=_notes(source, was_sorted, duplicates, gaps, largest),
        )


def _rounded(step: np.floating[Any]) -> float:
    """Round to the digits of float32: 0.1 instead of 0.10000000149."""
    return float(f"{step:.7g}")


def _notes(
    source: SourceTally, was_sorted: RowOrder, duplicates: int, gaps: int, largest: float
) -> tuple[str, ...]:
    notes = []
    lines = source.first_lines
    if source.empty_rows:
        first = f", the first in line {lines['empty_row']}"
        notes.append(f"Entirely empty rows, dropped: {source.empty_rows}{first}.")
    if source.missing_pixels:
        shown = ", ".join(map(str, source.missing_lines))
        more = " …" if source.rows_with_missing > len(source.missing_lines) else ""
        notes.append(
            f"Missing pixels, kept as holes: {source.missing_pixels} in {source.rows_with_missing} "
            f"rows, in lines {shown}{more}."
        )
    if was_sorted == "descending":
        notes.append("The depths descend in the file; the rows are stored ascending.")
    if was_sorted == "unsorted":
        first = f" from line {lines['order']} on"
        notes.append(f"The depths do not ascend{first}; the rows are stored ascending.")
    if duplicates:
        # In an unsorted file, rows with the same depth may be far apart.
        first = f", the first in line {lines['duplicate']}" if "duplicate" in lines else ""
        notes.append(f"Rows with the depth of the row before, kept: {duplicates}{first}.")
    if gaps:
        notes.append(f"Gaps in depth: {gaps}, the largest step is {largest:.6g}.")
    if source.value_min < 0 or source.value_max > _EIGHT_BIT_MAX:
        notes.append(f"Pixels go from {source.value_min:.6g} to {source.value_max:.6g}.")
    return tuple(notes)
