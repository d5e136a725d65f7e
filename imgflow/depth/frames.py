"""Frames: rows of a depth image as a colour-mapped picture, or as the numbers themselves.

A frame has one pixel per row and column, the smallest depth on top. Palette PNG and the three-byte
formats show exactly the same colours before lossy coding. Missing pixels are transparent where the
format can, and `MISSING_COLOR` where it cannot.
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
"""Longest side in pixels where a format has a limit: libjpeg's, and the fourteen bits of WebP."""

MEDIA_TYPES: dict[FrameFormat, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "npy": "application/x-npy",
}
_TOP_INDEX = 255
_BEST_QUALITY = 100


class FrameTooTall(ImgflowError):
    """The rows do not fit into the format; the text names its limit and formats without one."""


@dataclass(frozen=True)
class EncodedFrame:
    """An encoded frame; width and height in pixels, and how many of them are missing."""

    data: bytes
    media_type: str
    width: int
    height: int
    missing: int = 0


def color_indices(pixels: Float32, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale values to the 256 places of a colour map.

    Args:
        pixels: float32 (n, W), finite; NaN, where a pixel is missing, takes the first place.
        value_range: values of the first and the last colour; what lies outside takes these colours.
            When both are equal, values up to it take the first colour and those above it the last.

    Returns:
        uint8 (n, W), rounded half to even.

    Raises:
        ValueError: the range descends or is not finite.
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
        # In float64: the span of two float32 values can be larger than float32 holds.
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
        colormap: name of a colour map; `npy` ignores it and the range.
        value_range: values of the first and the last colour, see `color_indices`.
        format: `jpeg` and `webp` are lossy; `png` is exact; `npy` is the float32 array itself.
        quality: of the lossy formats, 1 to 100.

    Raises:
        UnknownColormap: no colour map has this name.
        FrameTooTall: a side is longer than the format can hold.
        ValueError: there are no pixels, or an argument is out of its range.
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
        colormap: name of a colour map.
        value_range: values of the first and the last colour.
        transparent: missing pixels are transparent, rather than of `MISSING_COLOR`.

    Returns:
        An image of mode P without missing pixels; RGBA or RGB with some.
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
    """What JPEG and WebP can hold of a drawn frame: L for a grey colour map, else RGB or RGBA.

    Pillow looks colours up in a third of the time that indexing an array takes.
    """
    if picture.mode != "P":
        return picture
    table = get_colormap(colormap)
    return picture.convert("L" if (table == table[:, :1]).all() else "RGB")
