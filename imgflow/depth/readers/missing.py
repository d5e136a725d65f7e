"""Missing pixels: NaN in every array, from reader to frame; and the rules for tables of numbers.

NaN instead of a separate mask: no step can forget it, and it passes unchanged through the database
and `.npy`. What each step does with it:

| step | rule |
| --- | --- |
| resize | a pixel is the mean of the present ones, weighted by the kernel; missing if they have |
|  | less than half of its weight |
| preview | the same, with equal weight for all pixels that it covers |
| frames | transparent in PNG and WebP, `MISSING_COLOR` in JPEG, NaN in `.npy` |
| statistics | left out, and counted |
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.rows import DepthRows, Float32, Float64
from imgflow.errors import Rejected

MISSING_COLOR = (0x55, 0x88, 0xFF)
"""The blue farthest from all built-in colour maps, also for red-green colour blindness."""

# A share of exactly a half must not depend on rounding.
LEAST_SHARE = 0.5 - 1e-9


def has_missing(pixels: NDArray[Any]) -> bool:
    """Whether any pixel is NaN, in a tenth of the time that `isnan` on each pixel takes."""
    return bool(pixels.size) and bool(np.isnan(pixels.min()))


def filled(pixels: Float32 | Float64) -> tuple[Float64, Float64]:
    """Split pixels into values, 0 where missing, and shares, 0 where missing and 1 elsewhere."""
    missing = np.isnan(pixels)
    return np.where(missing, 0, pixels).astype(np.float64), (~missing).astype(np.float64)


def shared(sums: Float64, shares: Float64) -> Float64:
    """Divide weighted sums of values by those of shares, both from `filled`; NaN for holes."""
    is_present = shares >= LEAST_SHARE
    quotients: Float64 = np.full(sums.shape, np.nan)
    np.divide(sums, shares, out=quotients, where=is_present)
    return quotients


# Tables that are numbers already, held to the rules for cells in `imgflow.depth.readers.reading`.


def checked_rows(table: NDArray[Any], first_row: int) -> DepthRows:
    """Apply the rules for empty rows, holes and infinite values to a table of numbers.

    Args:
        table: Numbers (n, 1 + N) with depths in the first column; NaN is an empty cell, so a
            missing pixel unless the row is empty.
        first_row: Number of its first row in the file, from 1.

    Raises:
        Rejected: A value is not allowed; the reason names its row and column.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
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
    """Reject the first bad cell, if any; both arrays are (n, columns)."""
    if not is_bad.any():
        return
    row, column = (int(place) for place in np.unravel_index(is_bad.argmax(), is_bad.shape))
    place = f"line {first_row + row}, column {first_column + column + 1}"
    if not np.isnan(cells[row, column]):
        raise Rejected("infinite_value", f"{place}: the value is infinite or too large")
    raise Rejected("empty_depth", f"{place}: NaN in a row that has pixels")
