"""Statistics of the pixels in an interval of depth."""

from dataclasses import dataclass

import numpy as np

from imgflow.depth.rows import Float32

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics in the unit of the pixels, computed in float64.

    Attributes:
        count: pixels, rows times columns.
        min: smallest.
        max: largest.
        mean: arithmetic mean.
        std: standard deviation of the population.
        percentiles: value by percentage, for each of `PERCENTILES`, interpolated.
        histogram: pixels in each bin; they add up to `count`.
        bin_edges: one more than bins; the last bin holds its upper edge.
    """

    count: int
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
        pixels: float32 (n, W), finite, at least one pixel.
        bins: of the histogram, at least 1.
        value_range: first and last edge of the histogram; pixels outside count in the outermost
            bins. By default the smallest and the largest pixel.

    Raises:
        ValueError: there are no pixels, no bins, or a range that descends.
    """
    if not pixels.size:
        raise ValueError("statistics need at least one pixel")
    values = pixels.astype(np.float64).ravel()
    low, high = value_range or (float(values.min()), float(values.max()))
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    return PixelStatistics(
        count=values.size,
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
