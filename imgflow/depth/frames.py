"""Frames: rows of a depth image as a colour-mapped picture, or as the numbers themselves.

A frame has one pixel per row and column, the smallest depth on top. Palette PNG and the RGB formats
have exactly the same colours before lossy coding. Missing pixels are transparent if the format
allows it, and `MISSING_COLOR` if not. Axes and legends are in `imgflow.depth.legends`, the picture
of an entire image in `imgflow.depth.preview`.
"""

import io
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from imgflow.depth.colormaps import get_colormap
from imgflow.depth.readers.missing import MISSING_COLOR, has_missing
from imgflow.depth.readers.rows import Float32
from imgflow.errors import ImgflowError

FrameFormat = Literal["jpeg", "png", "webp", "npy"]
FRAME_FORMATS: tuple[FrameFormat, ...] = get_args(FrameFormat)

MAX_SIDE: dict[FrameFormat, int] = {"jpeg": 65_500, "webp": 16_383}
"""Longest side in pixels of formats that have a limit: libjpeg's, and WebP's 14 bits."""

MEDIA_TYPES: dict[FrameFormat, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "npy": "application/x-npy",
}
_TOP_INDEX = 255
_BEST_QUALITY = 100


class FrameTooTall(ImgflowError):
    """The frame does not fit into the format; the message names the limit and other formats."""


@dataclass(frozen=True)
class EncodedFrame:
    """An encoded frame: width and height in pixels, and the number of missing pixels."""

    data: bytes
    media_type: str
    width: int
    height: int
    missing: int = 0


def color_indices(pixels: Float32, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale values to the 256 indices of a colour map.

    Args:
        pixels: float32 (n, W), finite; missing pixels (NaN) get index 0.
        value_range: Values of the first and the last colour, which values outside get too. If both
            are equal, values above get the last colour, all others the first.

    Returns:
        uint8 (n, W), rounded half to even.

    Raises:
        ValueError: The range descends or is not finite.
    """
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"the value range {low:g} to {high:g} must ascend and be finite")
    if has_missing(pixels):
        pixels = np.where(np.isnan(pixels), np.float32(low), pixels)
    if (low, high) == (0.0, float(_TOP_INDEX)):
        scaled = np.rint(pixels)
    elif low == high:
        return np.where(pixels > low, np.uint8(_TOP_INDEX), np.uint8(0))
    else:
        # In float64, since the difference of two float32 values can exceed float32.
        scaled = (pixels.astype(np.float64) - low) * (_TOP_INDEX / (high - low))
        np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, _TOP_INDEX, out=scaled).astype(np.uint8)


def render_frame(
    pixels: Float32,
    colormap: str,
    value_range: tuple[float, float],
    format: FrameFormat = "jpeg",
    quality: int = 85,
) -> EncodedFrame:
    """Draw rows with a colour map and encode them.

    Args:
        pixels: float32 (n, W), both at least 1; NaN where a pixel is missing.
        colormap: Name or JSON, see `get_colormap`; `npy` ignores it and the range.
        value_range: Values of the first and the last colour, see `color_indices`.
        format: `jpeg` and `webp` are lossy; `png` is exact; `npy` is the float32 array itself.
        quality: 1 to 100, for the lossy formats.

    Raises:
        UnknownColormap: No colour map has this name.
        FrameTooTall: A side is longer than the format allows.
        ValueError: There are no pixels, or an argument is out of range.
    """
    height, width = pixels.shape
    if not pixels.size:
        raise ValueError("a frame needs at least one row and one column")
    if format not in FRAME_FORMATS or not 1 <= quality <= _BEST_QUALITY:
        raise ValueError(f"format {format!r} with quality {quality} is not known")
    limit = MAX_SIDE.get(format)
    if limit is not None and max(height, width) > limit:
        raise FrameTooTall(
            f"{format} holds at most {limit} pixels a side and the frame is {width} by {height}; "
            "take fewer rows, or png or npy"
        )
    out = io.BytesIO()
    if format == "npy":
        np.save(out, np.ascontiguousarray(pixels), allow_pickle=False)
    else:
        picture = draw_frame(pixels, colormap, value_range, transparent=format != "jpeg")
        if format == "png":
            picture.save(out, "PNG", compress_level=1)
        elif format == "jpeg":
            without_palette(picture, colormap).save(out, "JPEG", quality=quality)
        else:
            without_palette(picture, colormap).save(out, "WEBP", quality=quality, method=0)
    missing = int(np.isnan(pixels).sum()) if has_missing(pixels) else 0
    return EncodedFrame(out.getvalue(), MEDIA_TYPES[format], width, height, missing)


def draw_frame(
    pixels: Float32, colormap: str, value_range: tuple[float, float], *, transparent: bool
) -> Image.Image:
    """Draw rows with a colour map.

    Args:
        pixels: float32 (n, W); NaN where a pixel is missing.
        colormap: Name or JSON, see `get_colormap`.
        value_range: Values of the first and the last colour, see `color_indices`.
        transparent: Whether missing pixels are transparent instead of `MISSING_COLOR`.

    Returns:
        Mode P if no pixel is missing; otherwise RGBA if `transparent`, else RGB.
    """
    picture = Image.fromarray(color_indices(pixels, value_range))
    picture.putpalette(get_colormap(colormap).tobytes())
    if not has_missing(pixels):
        return picture
    picture = picture.convert("RGB")
    missing = Image.fromarray(np.isnan(pixels))
    picture.paste(MISSING_COLOR, mask=missing)
    if transparent:
        picture.putalpha(ImageChops.invert(missing.convert("L")))
    return picture


def without_palette(picture: Image.Image, colormap: str) -> Image.Image:
    """Convert a drawn frame for JPEG and WebP: L for a grey colour map, otherwise RGB or RGBA.

    Pillow looks up colours in a third of the time that indexing an array takes.
    """
    if picture.mode != "P":
        return picture
    table = get_colormap(colormap)
    return picture.convert("L" if (table == table[:, :1]).all() else "RGB")
