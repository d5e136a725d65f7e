"""The preview: a picture of an entire depth image, of bounded size, made while its rows stream by.

Depth and width have no common unit, so the preview does not keep their proportion: it keeps the
width and averages rows if there are too many, so that a long image is not a hairline. Pictures of
single rows are in `imgflow.depth.frames`.
"""

import base64
import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgflow.depth.frames import MEDIA_TYPES, EncodedFrame, draw_frame, without_palette
from imgflow.depth.readers.missing import filled, has_missing, shared
from imgflow.depth.readers.rows import Float32, Float64

_JPEG_QUALITY = 88
# Maximum size, and quality. WebP, since JPEG's tables alone would take half of so few bytes.
_ICONS = (((96, 144), 50), ((64, 96), 40), ((48, 64), 30), ((32, 48), 20), ((16, 24), 10))
_MOST_ICON_BYTES = 640


class PreviewBuilder:
    """Averages any number of rows into bins, at most twice as many as the preview's height.

    When all bins are used, neighbours are merged, and from then on each bin takes twice the rows.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start an empty preview.

        Args:
            size: Maximum width and height in pixels.
        """
        self._max_width, self._max_height = size
        self._capacity = 2 * self._max_height
        self._rows_per_bin = 1
        self._sums: NDArray[np.float64] | None = None
        self._missing: NDArray[np.float64] | None = None  # pixels in each bin
        self._rows = 0

    def add(self, pixels: Float32 | Float64) -> None:
        """Add the next rows: float32 (n, W), NaN where missing; W must not change."""
        if self._sums is None:
            self._sums = np.zeros((self._capacity, pixels.shape[1]))
        while self._rows + len(pixels) > self._capacity * self._rows_per_bin:
            self._merge_bins()
        bins = (self._rows + np.arange(len(pixels))) // self._rows_per_bin
        starts = np.flatnonzero(np.diff(bins, prepend=-1))
        if has_missing(pixels):
            if self._missing is None:
                self._missing = np.zeros_like(self._sums)
            pixels, present = filled(pixels)
            self._missing[bins[starts]] += np.add.reduceat(1 - present, starts, axis=0)
        if len(pixels):
            self._sums[bins[starts]] += np.add.reduceat(pixels, starts, axis=0, dtype=np.float64)
        self._rows += len(bins)

    def _merge_bins(self) -> None:
        half = self._max_height
        for counted in (self._sums, self._missing):
            if counted is not None:
                counted[:half] = counted[0::2] + counted[1::2]
                counted[half:] = 0
        self._rows_per_bin *= 2

    def means(self) -> Float32:
        """The preview's values: float32 (height, width), within the maximum size; NaN for holes.

        Raises:
            ValueError: No rows were added.
        """
        if self._sums is None or not self._rows:
            raise ValueError("a preview needs at least one row")
        used = -(-self._rows // self._rows_per_bin)
        counts = np.full((used, 1), self._rows_per_bin)
        counts[-1] = self._rows - (used - 1) * self._rows_per_bin
        means = self._fitted(self._sums[:used] / counts)
        if self._missing is None:
            return means
        shares = self._fitted(1 - self._missing[:used] / counts)
        return shared(means.astype(np.float64), shares.astype(np.float64)).astype(np.float32)

    def _fitted(self, bins: Float64) -> Float32:
        """Average bins to the size of the preview."""
        values = bins.astype(np.float32)
        width = min(values.shape[1], self._max_width)
        height = min(self._rows, self._max_height)
        if values.shape == (height, width):
            return values
        # The box ends with the rows, which may be in the middle of the last bin.
        box = (0.0, 0.0, float(values.shape[1]), self._rows / self._rows_per_bin)
        resized = Image.fromarray(values).resize((width, height), Image.Resampling.BOX, box=box)
        smaller: Float32 = np.asarray(resized, dtype=np.float32)
        return smaller

    def render(
        self,
        colormap: str,
        value_range: tuple[float, float],
        format: Literal["jpeg", "png"] = "jpeg",
    ) -> EncodedFrame:
        """Draw the preview of the rows so far.

        Args:
            colormap: Name or JSON, see `imgflow.depth.colormaps.get_colormap`.
            value_range: Values of the first and the last colour, usually `DepthFacts.value_range`.
            format: `png` keeps missing pixels transparent; `jpeg` is lossy.

        Raises:
            UnknownColormap: No colour map has this name.
            ValueError: No rows were added, or the range descends.
        """
        means = self.means()
        out = io.BytesIO()
        picture = draw_frame(means, colormap, value_range, transparent=format == "png")
        if format == "png":
            picture.save(out, "PNG", optimize=True)
        else:
            picture = without_palette(picture, colormap)
            picture.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
        return EncodedFrame(out.getvalue(), MEDIA_TYPES[format], means.shape[1], means.shape[0])


def as_icon(frame: EncodedFrame) -> str:
    """A small copy of a picture as a `data:` URI of at most 880 characters; empty if none fits.

    Dagster's UI shows it from an event; the address of a picture would work only while the
    operator's browser reaches the API. Markdown of 1,000 characters or more, including the link
    around the picture, would hide in a dialog.
    """
    picture = Image.open(io.BytesIO(frame.data)).convert("RGB")
    icons = (_small(picture, size, quality) for size, quality in _ICONS)
    fitting = next((icon for icon in icons if len(icon) <= _MOST_ICON_BYTES), b"")
    text = base64.b64encode(fitting).decode("ascii")
    return f"data:image/webp;base64,{text}" if text else ""


def _small(picture: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    small = picture.copy()
    small.thumbnail(size)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=quality)
    return out.getvalue()
