"""The one place that calls `Image.open`: enabled decoders, our pixel limit, no leaking warnings."""

import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Importing a plugin registers its decoder. Were one of the enabled formats missing, Pillow would
# import all of its plugins, EPS and WMF with their external programs included. MPO is read by JPEG.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from imgflow.images.formats.headers import MOST_TEXT_BYTES

MEDIA_TYPES: dict[str, str] = {
    JpegImagePlugin.JpegImageFile.format: "image/jpeg",
    # Every program that shows JPEG shows the first picture of an MPO; none knows `image/mpo`.
    MpoImagePlugin.MpoImageFile.format: "image/jpeg",
    PngImagePlugin.PngImageFile.format: "image/png",
    GifImagePlugin.GifImageFile.format: "image/gif",
    WebPImagePlugin.WebPImageFile.format: "image/webp",
    TiffImagePlugin.TiffImageFile.format: "image/tiff",
    BmpImagePlugin.BmpImageFile.format: "image/bmp",
    AvifImagePlugin.AvifImageFile.format: "image/avif",
    Jpeg2KImagePlugin.Jpeg2KImageFile.format: "image/jp2",
    "HEIF": "image/heic",
}
"""The formats that can be enabled, by Pillow's names, with their media types."""

OPTIONAL_DECODERS = {"HEIF": "pillow_heif"}
"""Formats whose decoder is a package of its own, by module. Not among the requirements of imgflow,
since their wheels hold libraries under the GPL; the extra `heic` installs it."""

# Larger texts never reach it, see `containers`; with its own limit, it calls such a PNG damaged.
PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT_BYTES

_PILLOW_GLOBALS = threading.Lock()


@contextmanager
def pillow_session(max_pixels: int) -> Iterator[list[warnings.WarningMessage]]:
    """Hold Pillow's process-wide settings at ours, and collect warnings instead of showing them.

    Pillow keeps its pixel limit in a module global, and Python its warning filters, so threads take
    turns here. Worker processes do not meet.

    Args:
        max_pixels: Pillow itself refuses twice as many, for some formats before it allocates.

    Yields:
        The warnings that came so far. They include the decoder's own reason when a picture cannot
        be identified.
    """
    with _PILLOW_GLOBALS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS
        Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS = max_pixels, True
        try:
            yield caught
        finally:
            Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS = before


def load_decoder(format_name: str) -> bool:
    """Import the decoder of an optional format at its first picture: most workers never need it.

    Returns:
        Whether pictures of this format in `MEDIA_TYPES` can be decoded here.
    """
    if format_name not in OPTIONAL_DECODERS or format_name in Image.OPEN:
        return True
    try:
        heif = importlib.import_module(OPTIONAL_DECODERS[format_name])
        heif.libheif_version()  # it keeps an error of its library for the first use
    except ImportError:
        return False
    heif.options.DECODE_THREADS = 1  # every core has a worker already
    heif.options.THUMBNAILS = heif.options.DEPTH_IMAGES = heif.options.AUX_IMAGES = False
    heif.register_heif_opener()
    return True


def open_as(data: bytes, format_name: str) -> Image.Image:
    """Open a picture without decoding it, inside a `pillow_session`.

    Args:
        data: The whole file.
        format_name: One for which `load_decoder` said yes; no other decoder sees the file.

    Raises:
        Exception: Whatever Pillow raises, see `failures.PILLOW_ERRORS`.
    """
    return Image.open(io.BytesIO(data), formats=(format_name,))
