"""Missing pixels: holes in the file, NaN in every array, from the reader to the frame.

NaN and not a mask beside the array: no step can forget it, and it travels through the database and
`.npy` as it is. What each step makes of it:

| step | rule |
| --- | --- |
| resize | a pixel is the mean of the present ones by the weights of the kernel; missing when they |
|  | have less than half of its weight |
| preview | the same, with all pixels below it of equal weight |
| frames | transparent in PNG and WebP, `MISSING_COLOR` in JPEG, NaN in `.npy` |
| statistics | left out, and counted |
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.rows import Float32, Float64

MISSING_COLOR = (0x55, 0x88, 0xFF)
"""A blue as far from all built-in colour maps as any can be, also for red-green blindness."""

# A share of exactly a half must not depend on how a sum was rounded.
LEAST_SHARE = 0.5 - 1e-9


def has_missing(pixels: NDArray[Any]) -> bool:
    """Whether any pixel is NaN; a tenth of the time that looking at each with `isnan` takes."""
    return bool(pixels.size) and bool(np.isnan(pixels.min()))


def filled(pixels: Float32 | Float64) -> tuple[Float64, Float64]:
    """Split pixels into values, 0 where missing, and shares, 1 or 0 where missing."""
    missing = np.isnan(pixels)
    return np.where(missing, 0, pixels).astype(np.float64), (~missing).astype(np.float64)


def shared(sums: Float64, shares: Float64) -> Float64:
    """Divide weighted sums of what `filled` gave by the weight that was present; NaN for holes."""
    is_present = shares >= LEAST_SHARE
    quotients: Float64 = np.full(sums.shape, np.nan)
    np.divide(sums, shares, out=quotients, where=is_present)
    return quotients
