"""Legends: pictures that explain the colours and the depths of a frame, on white.

Frames are in `imgflow.depth.frames`, colour maps in `imgflow.depth.colormaps`.
"""

import io
import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgflow.depth.colormaps import COLORS, get_colormap
from imgflow.depth.readers.missing import MISSING_COLOR
from imgflow.depth.readers.rows import Float64

_MIN_LEGEND_WIDTH, _MIN_TICKS = 64, 2
MIN_SCALE_HEIGHT = 64
_INK = (51, 51, 51)
_FONT_SIZE = 12
_TICK_PIXELS = 4
_LABEL_PIXELS = 56  # minimum from one tick to the next
_LONGEST_LABEL = 9
_AXIS_X, _BAR_X, _BAR_WIDTH, _SCALE_WIDTH = 76, 92, 18, 184


def legend(
    name: str, low: float, high: float, *, width: int = 384, ticks: int = 5, label: str = ""
) -> bytes:
    """Draw a colour map as a bar with its values below.

    Args:
        name: Name or JSON of the colour map, see `get_colormap`.
        low: Value at the left end.
        high: Value at the right end.
        width: Width of the picture in pixels, at least 64.
        ticks: Number of values below the bar, at least 2.
        label: Text above the bar, such as the unit; nothing if empty.

    Returns:
        A PNG.

    Raises:
        UnknownColormap: No colour map has this name.
        ValueError: The picture is too narrow, it has too few ticks, or a value is not finite.
    """
    if (
        width < _MIN_LEGEND_WIDTH
        or ticks < _MIN_TICKS
        or not (np.isfinite(low) and np.isfinite(high))
    ):
        raise ValueError("a legend needs 64 pixels, 2 ticks and finite values")
    margin, bar_height = 26, 22
    top = 22 if label else 8
    bar_width = width - 2 * margin
    picture = Image.new("RGB", (width, top + bar_height + 26), "white")
    table = get_colormap(name)
    across = table[np.arange(bar_width) * COLORS // bar_width]
    bar = np.broadcast_to(across, (bar_height, bar_width, 3))
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)), (margin, top))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_SIZE)
    bottom = top + bar_height
    draw.rectangle((margin - 1, top - 1, margin + bar_width, bottom), outline=_INK)
    if label:
        draw.text((margin, 4), label, fill=_INK, font=font)
    for tick in range(ticks):
        share = tick / (ticks - 1)
        x = margin + round(share * (bar_width - 1))
        draw.line((x, bottom + 1, x, bottom + 5), fill=_INK)
        value = low * (1 - share) + high * share
        draw.text((x, bottom + 7), f"{value:.4g}", fill=_INK, font=font, anchor="mt")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def depth_legend(
    depths: Float64,
    colormap: str,
    value_range: tuple[float, float],
    *,
    height: int,
    has_missing: bool = False,
    label: str = "",
) -> bytes:
    """Draw the depth axis of a frame, and next to it the colour map with its values.

    Rows need not be evenly spaced: a tick is drawn where its depth is among the rows, in a gap at
    the border of two rows. So the axis lines up with a frame next to it that is scaled to `height`
    and starts below the strip of the label, if there is one.

    Args:
        depths: float64 (n,), the depths of the frame's rows, ascending, at least one.
        colormap: Name or JSON of the frame's colour map, see `get_colormap`.
        value_range: Values of the first and the last colour.
        height: Height of the axis and of the frame as shown, in pixels, at least 64.
        has_missing: Whether to also explain the colour of missing pixels.
        label: Text above the axis, such as the unit; nothing if empty.

    Returns:
        A PNG, 184 pixels wide and `height` high, plus 22 for a label and 22 for `has_missing`.

    Raises:
        UnknownColormap: No colour map has this name.
        ValueError: There are no rows, or the height is too small.
    """
    if not len(depths) or height < MIN_SCALE_HEIGHT:
        raise ValueError(f"a depth legend needs a row and {MIN_SCALE_HEIGHT} pixels")
    strip = 22
    top = strip if label else 0
    picture = Image.new("RGB", (_SCALE_WIDTH, top + height + strip * has_missing), "white")
    table = get_colormap(colormap)
    up = table[::-1][np.arange(height) * COLORS // height]
    bar = np.broadcast_to(up[:, None], (height, _BAR_WIDTH, 3))
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)), (_BAR_X, top))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_SIZE)
    if label:
        draw.text((4, 4), label, fill=_INK, font=font)
    draw.line((_AXIS_X, top, _AXIS_X, top + height - 1), fill=_INK)
    most = max(_MIN_TICKS, height // _LABEL_PIXELS)

    def tick(y: float, x: int, text: str, anchor: str) -> None:
        at = top + min(height - 1, max(0, round(y)))
        # Text is kept inside the picture; its tick is not moved.
        text_y = min(top + height - _FONT_SIZE / 2, max(top + _FONT_SIZE / 2, at))
        draw.line((x, at, x + _TICK_PIXELS, at), fill=_INK)
        side = x - 3 if anchor == "rm" else x + _TICK_PIXELS + 4
        draw.text((side, text_y), text, fill=_INK, font=font, anchor=anchor)

    for depth in ticks_between(float(depths[0]), float(depths[-1]), most):
        row = float(np.interp(float(depth), depths, np.arange(len(depths))))
        tick((row + 0.5) * height / len(depths) - 0.5, _AXIS_X - _TICK_PIXELS, _text(depth), "rm")
    low, high = value_range
    for value in ticks_between(low, high, most):
        share = (float(value) / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
        tick((1 - share) * (height - 1), _BAR_X + _BAR_WIDTH, _text(value), "lm")
    if has_missing:
        bottom = top + height
        draw.rectangle((_BAR_X, bottom + 4, _BAR_X + _BAR_WIDTH - 1, bottom + 17), MISSING_COLOR)
        draw.text((_BAR_X + _BAR_WIDTH + 8, bottom + 11), "missing", _INK, font, anchor="lm")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def ticks_between(low: float, high: float, most: int) -> Sequence[Decimal]:
    """Round numbers in `low` to `high`, ends included: multiples of 1, 2 or 5 times ten to n.

    At most `most` of them, which must be 2 or more; the two ends if fewer than two fit.
    """
    ends = [Decimal(repr(low)), Decimal(repr(high))]
    span = ends[1] - ends[0]
    if not span:
        return ends[:1]
    power = Decimal(10) ** (math.floor((span / most).log10()) - 1)
    for factor in (1, 2, 5, 10, 20, 50, 100, 200):
        step = (factor * power).normalize()
        first, last = math.ceil(ends[0] / step), math.floor(ends[1] / step)
        if last - first < most:
            break
    ticks = [number * step for number in range(first, last + 1)]
    return ticks if len(ticks) >= _MIN_TICKS else ends


def _text(number: Decimal) -> str:
    plain = format(number, "f")
    return plain if len(plain) <= _LONGEST_LABEL else f"{float(number):.7g}"
