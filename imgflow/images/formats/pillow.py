"""The one place that opens photographs with Pillow: enabled decoders, our pixel limit, no warnings.

Limits and facts of a photograph are in `decoding`, Pillow's errors in `rejections`.
"""

import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Importing a plugin registers its decoder. If an enabled format were missing, Pillow would import
# all of its plugins, including EPS and WMF with their external programs. JPEG's plugin reads MPO.
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
    # Programs that show JPEG show the first picture of an MPO; none knows `image/mpo`.
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
"""Formats with a decoder in a separate package, and its module. imgflow does not require it, since
its wheels contain libraries under the GPL; the extra `heic` installs it."""

# Larger texts never reach Pillow, see `headers`; its own limit would call such a PNG damaged.
PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT_BYTES

_PILLOW_GLOBALS = threading.Lock()


@contextmanager
def pillow_session(max_pixels: int) -> Iterator[list[warnings.WarningMessage]]:
    """Apply our settings to Pillow, and collect its warnings instead of showing them.

    Pillow's pixel limit and Python's warning filters are global to the process, so threads take
    turns here. Worker processes do not affect each other.

    Args:
        max_pixels: Pillow itself refuses above twice this, for some formats before it allocates.

    Yields:
        The warnings so far, which include the decoder's own reason if a picture cannot be
        identified.
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
    """Import the decoder of an optional format at its first picture; most workers never need it.

    Returns:
        Whether this format, one of `MEDIA_TYPES`, can be decoded here.
    """
    if format_name not in OPTIONAL_DECODERS or format_name in Image.OPEN:
        return True
    try:
        heif = importlib.import_module(OPTIONAL_DECODERS[format_name])
        heif.libheif_version()  # a broken library fails only on first use
    except ImportError:
        return False
    heif.options.DECODE_THREADS = 1  # every core has a worker already
    heif.options.THUMBNAILS = heif.options.DEPTH_IMAGES = heif.options.AUX_IMAGES = False
    heif.register_heif_opener()
    return True


def open_as(data: bytes, format_name: str) -> Image.Image:
    """Open a picture without decoding it; call this inside a `pillow_session`.

    Args:
        data: Complete file.
        format_name: Format that `load_decoder` accepted; no other decoder sees the file.

    Raises:
        Exception: Whatever Pillow raises, see `rejections.PILLOW_ERRORS`.
    """
    return Image.open(io.BytesIO(data), formats=(format_name,))
