"""Pictures to bytes. The same picture and settings give the same bytes in every process.

(PNG bytes also depend on the zlib that Pillow was built with; their pixels do not.)
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from imgflow.images.modes import ALPHA, WIDE, narrow
from imgflow.images.wide import as_gray_with_alpha, with_alpha

# A picture so small that it fits into an event: text that a browser shows without fetching it.


MOST_CHARACTERS = 880
"""Of a picture as text: Dagster's UI shows Markdown in its place below 1,000 characters, of which
the link to the image's page takes some, and longer ones behind a link that opens a dialog."""

# Longest side in pixels and quality. A photograph takes 550 bytes at the first, where WebP
# takes 450 and three times as long; only noise needs the others.
_STEPS = ((56, 35), (48, 25), (32, 10), (16, 10))
_OVERSAMPLING = 4


def inline_picture(image: Image.Image) -> str:
    """Draw a small copy of a picture as a `data:` URI, transparent parts on white.

    Args:
        image: L, LA, RGB, RGBA or I;16; it stays as it is. How large it is hardly matters: of a
            large one, every few pixels are looked at.

    Returns:
        At most `MOST_CHARACTERS` characters; empty where even the smallest copy takes more.
    """
    for side, quality in _STEPS:
        file = io.BytesIO()
        _sampled(image, side).save(file, "JPEG", quality=quality, optimize=True)
        text = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        if len(text) <= MOST_CHARACTERS:
            return text
    return ""


def _sampled(image: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    coarse = min(image.width, _OVERSAMPLING * width), min(image.height, _OVERSAMPLING * height)
    small = image.resize(coarse, Image.Resampling.NEAREST)
    if small.mode == WIDE:
        if ALPHA in image.info:
            small.info[ALPHA] = image.info[ALPHA].resize(coarse, Image.Resampling.NEAREST)
        small = narrow(small)
    if small.mode in ("LA", "RGBA"):
        ground = Image.new(small.mode[:-1], small.size, "white")
        ground.paste(small.convert(ground.mode), mask=small.getchannel("A"))
        small = ground
    elif small.mode not in ("L", "RGB"):
        small = small.convert("RGB")
    small = small.resize((width, height), Image.Resampling.BOX)
    small.info = {}  # Pillow's encoder falls back on what the decoder left here
    return small


LONGEST_JPEG_SIDE = 65_500
"""libjpeg's own limit, in pixels."""
_MEDIA_TYPES = {
    "JPEG": ("image/jpeg", ".jpg"),
    "PNG": ("image/png", ".png"),
    "WEBP": ("image/webp", ".webp"),
}
_PNG_COMPRESSION = 1  # on photographs 4 times as fast as zlib's default, for files 15 % larger
_RUN_LENGTHS = 3  # zlib's Z_RLE: of photographs 10 to 18 % smaller in less time
_LARGEST_SHARE = 0.3  # of one level in a photograph; pages and screens have more, and repetitions
_FULL_CHROMA_QUALITY = 90  # from which JPEG keeps all of the colour, 4:4:4


@dataclass(frozen=True)
class Encoded:
    """One finished output.

    Attributes:
        data: The file.
        media_type: Such as `image/jpeg`.
        extension: With the dot, such as `.jpg`.
        width: In pixels.
        height: In pixels.
        mode: Pillow's mode of the picture in the file: L, LA, I;16, RGB or RGBA; `LA;16` where it
            is 16-bit gray with alpha, which Pillow reads as RGBA.
        metadata: Stands in the row and in the asset's metadata, such as a score.
        picture: A small copy as text, see `imgflow.images.encoding`; empty where nobody drew one.
    """

    data: bytes
    media_type: str
    extension: str
    width: int
    height: int
    mode: str
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)
    picture: str = ""


def has_alpha(image: Image.Image) -> bool:
    """Whether the picture is transparent somewhere, by an alpha channel or a transparent level."""
    return image.mode in ("LA", "RGBA") or "transparency" in image.info or ALPHA in image.info


def flattened(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Lay a picture with alpha onto a background, in sRGB values.

    Args:
        image: Any mode; those without an alpha channel are returned as they are.
        background: Red, green and blue, 0 to 255. Gray pictures get its luma.

    Returns:
        Mode L for LA, RGB for RGBA.
    """
    if image.mode not in ("LA", "RGBA"):
        return image
    color = Image.new("RGB", (1, 1), background)
    ground = color.convert(image.mode[:-1]).resize(image.size)
    ground.paste(image.convert(image.mode[:-1]), mask=image.getchannel("A"))
    return ground


def encode(image: Image.Image, format_name: str, *, quality: int, credit: bytes) -> Encoded:
    """Write a picture as a file without any metadata but its credit.

    Args:
        image: JPEG: L or RGB. PNG: L, LA, RGB, RGBA or I;16. WebP: L, LA, RGB or RGBA.
        format_name: `JPEG`, `PNG` or `WEBP`.
        quality: For JPEG and WebP, 1 to 100; JPEG keeps its colours at full size from 90.
        credit: An EXIF block, or `b""`.
    """
    options: dict[str, Any] = {"exif": credit} if credit else {}
    if format_name == "PNG" and ALPHA in image.info:
        pairs = encode(with_alpha(image, image.info[ALPHA]), "PNG", quality=quality, credit=credit)
        return replace(pairs, data=as_gray_with_alpha(pairs.data), mode="LA;16")
    if format_name == "PNG":
        options["compress_level"] = _PNG_COMPRESSION
        if _is_photographic(image):
            options["compress_type"] = _RUN_LENGTHS
        if image.mode == WIDE and "transparency" in image.info:
            options["transparency"] = image.info["transparency"]
    else:
        options["quality"] = quality
        if format_name == "JPEG" and quality >= _FULL_CHROMA_QUALITY:
            options["subsampling"] = "4:4:4"
    # Pillow's encoders fall back on what the decoder left here: comments, profiles, transparency.
    info, image.info = image.info, {}
    file = io.BytesIO()
    try:
        image.save(file, format_name, **options)
    finally:
        image.info = info  # other outputs may use the same picture
    media_type, extension = _MEDIA_TYPES[format_name]
    picture = inline_picture(image)
    return Encoded(file.getvalue(), media_type, extension, *image.size, image.mode, picture=picture)


def _is_photographic(image: Image.Image) -> bool:
    """Whether no level is frequent, as in photographs and unlike in drawings, pages and screens.

    Those repeat whole patterns, which run lengths do not find: 3.5 times the bytes for a page of
    text.
    """
    if image.mode not in ("L", "RGB"):
        return False
    return max(image.histogram()) <= _LARGEST_SHARE * image.width * image.height


def for_jpeg(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """What of a picture a JPEG can hold: 8 bits, no alpha."""
    return flattened(narrow(image) if image.mode == WIDE else image, background)
