"""Statistics of the pixels in an interval of depth; those of an entire image are in `facts`."""

from dataclasses import dataclass

import numpy as np

from imgflow.depth.readers.missing import has_missing
from imgflow.depth.readers.rows import Float32
from imgflow.errors import ImgflowError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


class NoPixels(ImgflowError, ValueError):
    """There are no pixels to compute statistics of."""


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics in the unit of the pixels, computed in float64.

    Attributes:
        count: Number of pixels, without missing ones.
        missing: Number of missing pixels; all other fields ignore them.
        std: Standard deviation of the population.
        percentiles: Interpolated value for each percentage in `PERCENTILES`.
        histogram: Number of pixels in each bin; their sum is `count`.
        bin_edges: One more than there are bins; the last bin includes its upper edge.
    """

    count: int
    missing: int
    min: float
    max: float
    mean: float
    std: float
    percentiles: dict[int, float]
    histogram: tuple[int, ...]
    bin_edges: tuple[float, ...]


def statistics(
    pixels: Float32, *, bins: int = 64, value_range: tuple[float, float] | None = None
) -> PixelStatistics:
    """Compute the statistics of an interval.

    Args:
        pixels: float32 (n, W), NaN where a pixel is missing.
        bins: Number of bins in the histogram, at least 1.
        value_range: First and last edge of the histogram; pixels outside count in the outermost
            bins. Default: the minimum and maximum pixel.

    Raises:
        NoPixels: There are none, or all are missing.
        ValueError: There are no bins, or the range descends.
    """
    values = pixels.astype(np.float64).ravel()
    if has_missing(values):
        values = values[~np.isnan(values)]
    if not values.size:
        raise NoPixels(f"no pixel of {pixels.size} has a value")
    low, high = value_range or (float(values.min()), float(values.max()))
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    return PixelStatistics(
        count=values.size,
        missing=pixels.size - values.size,
        min=float(values.min()),
        max=float(values.max()),
        mean=float(values.mean()),
        std=float(values.std()),
        percentiles=dict(
            zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True)
        ),
        histogram=tuple(counts.tolist()),
        bin_edges=tuple(edges.tolist()),
    )
