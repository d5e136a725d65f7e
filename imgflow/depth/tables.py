"""Rows out of tables that are numbers already: the rules of `imgflow.depth.readers.reading` for cells."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.rows import DepthRows
from imgflow.errors import Rejected


def checked_rows(table: NDArray[Any], first_row: int) -> DepthRows:
    """Apply the rules for empty rows, holes and infinite values to a table of numbers.

    Args:
        table: numbers (n, 1 + N), depths in the first column; NaN is an empty cell, and a missing
            pixel beside others.
        first_row: 1-based number of its first row.

    Raises:
        Rejected: with the number of the row, and of the column, in the reason.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        depths = table[:, 0].astype(np.float64)
        pixels = np.ascontiguousarray(table[:, 1:], dtype=np.float32)
    if np.isfinite(depths).all() and np.isfinite(pixels).all():
        return DepthRows(depths, pixels, first_row)
    is_empty = np.isnan(depths) & np.isnan(pixels).all(axis=1)
    _refuse(~np.isfinite(depths[:, None]) & ~is_empty[:, None], depths[:, None], first_row, 0)
    _refuse(np.isinf(pixels), pixels, first_row, 1)
    kept = ~is_empty
    lines = first_row + np.flatnonzero(kept)
    return DepthRows(depths[kept], pixels[kept], first_row, int(is_empty.sum()), lines)


def _refuse(
    is_bad: NDArray[np.bool_], cells: NDArray[Any], first_row: int, first_column: int
) -> None:
    """Reject the first of the bad cells; both arrays are (n, columns)."""
    if not is_bad.any():
        return
    row, column = (int(place) for place in np.unravel_index(is_bad.argmax(), is_bad.shape))
    place = f"line {first_row + row}, column {first_column + column + 1}"
    if not np.isnan(cells[row, column]):
        raise Rejected("infinite_value", f"{place}: the value is infinite or too large")
    raise Rejected("empty_depth", f"{place}: NaN in a row that has pixels")
