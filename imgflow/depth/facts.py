"""What is known of a depth image once its last row was read."""

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
"""A step from one depth to the next that is more than this many median steps is a gap."""
MOST_MISSING_LINES = 10
_EIGHT_BIT_MAX = 255.0


@dataclass(frozen=True)
class DepthFacts:
    """Facts on one depth image; depths are in the file's own unit, values are those of the file.

    Attributes:
        rows: rows with values.
        columns: pixel columns in the file.
        width: pixels of a resized row.
        depth_min: smallest depth, which is that of the first resized row.
        depth_max: largest depth, which is that of the last resized row.
        value_min: smallest pixel of the file.
        value_max: largest pixel of the file.
        values_are_whole: every pixel of the file is a whole number.
        missing_pixels: pixels of the file that are empty or NaN; they count for nothing above.
        rows_with_missing: rows with at least one of them.
        missing_lines: lines of the first of these rows, at most `MOST_MISSING_LINES`.
        empty_rows_dropped: rows that held nothing.
        duplicates: rows with the depth of the row before, in order of depth; all are kept.
        was_sorted: order of the depths in the file; resized rows always ascend.
        step_median: median of the steps between different depths; 0 when there is only one depth.
        gaps: steps of more than `GAP_STEPS` medians.
        largest_step: largest step between neighbouring depths.
        first_lines: line of the file (row of a table or picture) in which an irregularity is met
            first: `empty_row`; `missing_pixel`; `order`, whose depth is below the one before;
                `duplicate`, whose depth is that of the row before in the file. Only of those that
                there are.
        notes: what a person should know, one sentence each; empty for a regular image.
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
        """Values for the two ends of a colour map, see `display_range`."""
        return display_range(self.value_min, self.value_max, whole=self.values_are_whole)


def display_range(value_min: float, value_max: float, *, whole: bool) -> tuple[float, float]:
    """The values that the two ends of a colour map stand for, the same for all frames of an image.

    0 to 255 for eight-bit pixels, so that images compare; the image's own range for any others.
    """
    if whole and value_min >= 0 and value_max <= _EIGHT_BIT_MAX:
        return 0.0, _EIGHT_BIT_MAX
    return value_min, value_max


class SourceTally:
    """Counts over the rows of the file, in its order."""

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
        """Count a batch as it was read."""
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
        # NaN, before the first row, is neither below nor equal.
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
    """The first line of a batch that has no row; where none is left out, the one after all."""
    is_later = lines != first_line + np.arange(len(lines))
    return first_line + int(is_later.argmax() if is_later.any() else len(lines))


class StepTally:
    """Steps between neighbouring depths, in ascending order.

    Keeps 4 bytes a row; 8 where steps are beyond float32, or vanish in it.
    """

    def __init__(self) -> None:
        self._steps: list[Float32 | Float64] = []
        self.depth_min = float("nan")
        self.depth_max = float("nan")

    def add(self, depths: Float64) -> None:
        """Count the float64 depths (n,) of the next chunk.

        Raises:
            Rejected: `infinite_value`, as no step or interval of such depths can be computed.
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
        with np.errstate(over="ignore", under="ignore"):  # looked for here
            short = steps.astype(np.float32)
        is_kept = bool((np.isfinite(short) & ((short > 0) == (steps > 0))).all())
        self._steps.append(short if is_kept else steps)
        self.depth_max = last

    def facts(self, source: SourceTally, width: int, was_sorted: RowOrder) -> DepthFacts:
        """Close both tallies.

        Raises:
            Rejected: `no_rows` or `no_pixels`.
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
    """As many digits as float32 has: 0.1 and not 0.10000000149."""
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
        # In a file without order, rows of one depth may be far apart.
        first = f", the first in line {lines['duplicate']}" if "duplicate" in lines else ""
        notes.append(f"Rows with the depth of the row before, kept: {duplicates}{first}.")
    if gaps:
        notes.append(f"Gaps in depth: {gaps}, the largest step is {largest:.6g}.")
    if source.value_min < 0 or source.value_max > _EIGHT_BIT_MAX:
        notes.append(f"Pixels go from {source.value_min:.6g} to {source.value_max:.6g}.")
    return tuple(notes)
