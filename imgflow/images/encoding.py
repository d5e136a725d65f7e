"""Encodes pictures: finished outputs as files, and small copies as text for events.

The same picture and settings give the same bytes in every process. (PNG bytes also depend on the
zlib that Pillow was built with; their pixels do not.) Which outputs exist is in
`imgflow.images.outputs`.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from imgflow.images.modes import ALPHA, WIDE, narrow
from imgflow.images.wide import as_gray_with_alpha, with_alpha

# Inline pictures: text small enough for an event, which a browser shows without fetching anything.


MOST_CHARACTERS = 880
"""Limit of an inline picture. Dagster's UI shows Markdown of up to 1,000 characters in place, of
which the link to the image's page takes some; longer text hides behind a link to a dialog."""

# Longest side in pixels, and quality. A photograph takes 550 bytes with the first pair (WebP: 450
# bytes, but three times as long); only noise needs the others.
_STEPS = ((56, 35), (48, 25), (32, 10), (16, 10))
_OVERSAMPLING = 4


def inline_picture(image: Image.Image) -> str:
    """Draw a small copy of a picture as a `data:` URI, transparent parts on white.

    Args:
        image: Mode L, LA, RGB, RGBA or I;16; not modified. Its size hardly affects the time, since
            large pictures are subsampled first.

    Returns:
        At most `MOST_CHARACTERS` characters; empty if even the smallest copy takes more.
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
    small.info = {}  # Pillow's encoder would write what the decoder left here
    return small


# Files: finished outputs as JPEG, PNG or WebP.

LONGEST_JPEG_SIDE = 65_500
"""libjpeg's own limit, in pixels."""
_MEDIA_TYPES = {
    "JPEG": ("image/jpeg", ".jpg"),
    "PNG": ("image/png", ".png"),
    "WEBP": ("image/webp", ".webp"),
}
_PNG_COMPRESSION = 1  # on photographs, 4 times as fast as zlib's default for 15 % larger files
_RUN_LENGTHS = 3  # zlib's Z_RLE: makes photographs 10 to 18 % smaller in less time
_LARGEST_SHARE = 0.3  # of one level in a photograph; pages and screenshots exceed it, and repeat
_FULL_CHROMA_QUALITY = 90  # from here on, JPEG colours are not subsampled (4:4:4)


@dataclass(frozen=True)
class Encoded:
    """One finished output.

    Attributes:
        data: The encoded file.
        media_type: Media type such as `image/jpeg`.
        extension: File name extension with its dot, such as `.jpg`.
        width: Width in pixels.
        height: Height in pixels.
        mode: Pillow's mode of the picture in the file: L, LA, I;16, RGB or RGBA; `LA;16` for
            16-bit gray with alpha, which Pillow reads as RGBA.
        metadata: Values such as a score, kept in the row and in the asset's metadata.
        picture: Small copy as text, see `inline_picture`; empty if none was drawn.
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
    """Whether the picture has an alpha channel or a transparent level."""
    return image.mode in ("LA", "RGBA") or "transparency" in image.info or ALPHA in image.info


def flattened(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Composite a picture with alpha onto a background, in sRGB values.

    Args:
        image: Any mode; returned unchanged if it has no alpha channel.
        background: Red, green and blue, 0 to 255; its luma for gray pictures.

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
    """Encode a picture without any metadata except its credit.

    Args:
        image: Mode L or RGB for JPEG; L, LA, RGB, RGBA or I;16 for PNG; L, LA, RGB or RGBA for
            WebP.
        format_name: `JPEG`, `PNG` or `WEBP`.
        quality: 1 to 100 for JPEG and WebP; from 90 on, JPEG does not subsample colours.
        credit: EXIF block, or `b""`.
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
    # Pillow's encoders would write what the decoder left here: comments, profiles, transparency.
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
    """Whether no level dominates, unlike in drawings, pages and screenshots.

    Those repeat patterns that run lengths miss: a page of text takes 3.5 times the bytes.
    """
    if image.mode not in ("L", "RGB"):
        return False
    return max(image.histogram()) <= _LARGEST_SHARE * image.width * image.height


def for_jpeg(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Reduce a picture to what JPEG can hold: 8 bits, no alpha."""
    return flattened(narrow(image) if image.mode == WIDE else image, background)
