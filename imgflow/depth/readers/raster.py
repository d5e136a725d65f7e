"""Reads depth maps: grey PNG or TIFF with 8, 16 or 32 bits, one row of pixels per depth.

A picture has no depth column. Its rows are at depths 0, 1, 2 … unless a text chunk of the PNG, or
the ImageDescription of the TIFF, has JSON such as `{"depth_first": 9000.1, "depth_step": 0.1}`.
Depths are computed in decimal arithmetic, so that row 3 of these is at exactly 9000.4. Photographs
in these formats are in `imgflow.images.formats`.
"""

import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from imgflow.depth.readers.missing import checked_rows
from imgflow.depth.readers.rows import DepthLimits, DepthRows
from imgflow.errors import Rejected, is_of_machine

# Pillow decodes a picture at once: 200 MB at 32 bits.
MOST_PIXELS = 50_000_000
_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F")
_DESCRIPTION_TAG = 270
_BLOCK_VALUES = 2**19


class PngDepthReader:
    """Reads depth maps of one grey channel."""

    media_type = "image/png"
    format = "PNG"

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a picture; see `imgflow.depth.readers.rows.DepthReader.read`."""
        # On disk and not in memory, since Pillow needs to seek in the encoded picture.
        with tempfile.TemporaryFile(prefix="imgflow-depth-") as file:
            for part in stream:
                file.write(part)
                limits.check_bytes(file.tell())
            file.seek(0)
            yield from _rows(file, self.format, limits)


class TiffDepthReader(PngDepthReader):
    """Reads depth maps as TIFF, which may also have floats."""

    media_type = "image/tiff"
    format = "TIFF"


def _rows(file: IO[bytes], format: str, limits: DepthLimits) -> Iterator[DepthRows]:
    # MemoryError passes through, since the caller knows the limit.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `_check` has our own limit
            picture = Image.open(file, formats=(format,))
        _check(picture, limits)
        first, step = _depth_scale(picture)
        picture.load()
    except (Rejected, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Rejected("not_a_depth_map", f"this is no {format}") from error
    except Image.DecompressionBombError as error:
        raise Rejected("too_many_pixels", str(error)) from error
    # Decoders may raise anything: struct.error, EOFError, KeyError, SyntaxError …
    except Exception as error:
        if "out of memory" in str(error):  # as libtiff and zlib report it
            raise MemoryError(str(error)) from error
        if is_of_machine(error):
            raise
        raise Rejected("corrupt_depth_map", f"the picture cannot be decoded: {error}") from error
    width, height = picture.size
    step_rows = max(1, _BLOCK_VALUES // width)
    for top in range(0, height, step_rows):
        stop = min(height, top + step_rows)
        pixels = np.asarray(picture.crop((0, top, width, stop)))
        depths = np.array([float(first + row * step) for row in range(top, stop)])
        with np.errstate(invalid="ignore"):  # signalling NaN, in a picture of floats
            table = np.column_stack([depths, pixels])
        yield checked_rows(table, first_row=top + 1)


def _check(picture: Image.Image, limits: DepthLimits) -> None:
    width, height = picture.size
    if picture.mode not in _MODES:
        raise Rejected(
            "not_one_channel", f"a depth map has one grey channel; this picture is {picture.mode}"
        )
    if width * height > MOST_PIXELS:
        raise Rejected(
            "too_many_pixels", f"{width} by {height} pixels, and {MOST_PIXELS:,} are the limit"
        )
    limits.check_rows(height)
    if width >= limits.max_columns:
        raise Rejected(
            "too_many_columns", f"{width} columns, and {limits.max_columns - 1} are the limit"
        )


def _depth_scale(picture: Image.Image) -> tuple[Decimal, Decimal]:
    """Depth of the first row, and the step from one row to the next."""
    tags: Any = getattr(picture, "tag_v2", {})
    for text in (*picture.info.values(), tags.get(_DESCRIPTION_TAG)):
        if not isinstance(text, str) or '"depth_step"' not in text:
            continue
        try:
            said = json.loads(text, parse_float=Decimal, parse_int=Decimal)
            first, step = Decimal(said["depth_first"]), Decimal(said["depth_step"])
        except (ValueError, KeyError, TypeError, InvalidOperation) as error:
            raise Rejected(
                "bad_depth_scale", f"depth_first and depth_step are no numbers: {text[:80]!r}"
            ) from error
        ends = (float(first), float(step), float(first + step * picture.size[1]))
        if not np.isfinite(ends).all():
            raise Rejected("bad_depth_scale", f"depths beyond float64: {text[:80]!r}")
        return first, step
    return Decimal(0), Decimal(1)
