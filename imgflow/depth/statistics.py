"""Statistics of the pixels in an interval of depth."""

from dataclasses import dataclass

import numpy as np

from imgflow.depth.readers.missing import has_missing
from imgflow.depth.readers.rows import Float32
from imgflow.errors import ImgflowError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


class NoPixels(ImgflowError, ValueError):
    """Statistics of no pixel at all."""


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics in the unit of the pixels, computed in float64.

    Attributes:
        count: pixels that there are, rows times columns without the missing ones.
        missing: missing pixels; nothing else here knows of them.
        min: smallest.
        max: largest.
        mean: arithmetic mean.
        std: standard deviation of the population.
        percentiles: value by percentage, for each of `PERCENTILES`, interpolated.
        histogram: pixels in each bin; they add up to `count`.
        bin_edges: one more than bins; the last bin holds its upper edge.
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
        bins: of the histogram, at least 1.
        value_range: first and last edge of the histogram; pixels outside count in the outermost
            bins. By default the smallest and the largest pixel.

    Raises:
        NoPixels: there are none, or all are missing.
        ValueError: no bins, or a range that descends.
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
