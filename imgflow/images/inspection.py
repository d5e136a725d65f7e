"""Inspects finished outputs as a stranger would: their size, and any private metadata left in them.

Uploads are opened by `imgflow.images.formats.decoding`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import ExifTags, Image

from imgflow.images.formats.pillow import pillow_session
from imgflow.images.formats.rejections import PILLOW_ERRORS

_CREDIT = {ExifTags.Base.Artist, ExifTags.Base.Copyright}
_FORMATS = ("JPEG", "PNG", "WEBP")
# Keys that Pillow sets for any picture; `exif` is checked tag by tag.
_HARMLESS = frozenset(
    {
        *("exif", "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "transparency"),
        *("loop", "background", "timestamp", "duration", "gamma", "adobe", "adobe_transform"),
    }
)
_MOST_NAMED = 8


class Damaged(ValueError):
    """The file cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Inspected:
    """Size in pixels, and metadata that no output should have.

    Attributes:
        private: Names of that metadata, such as `EXIF GPSInfo`.
    """

    width: int
    height: int
    private: tuple[str, ...]


def inspect_output(data: bytes, most_pixels: int) -> Inspected:
    """Decode a finished JPEG, PNG or WebP, and list its private metadata.

    Args:
        data: Complete file.
        most_pixels: Pictures with more pixels are not decoded; only their header is read.

    Raises:
        Damaged: The file is in another format, or its pixels cannot be decoded.
    """
    with pillow_session(max(1, most_pixels)):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            # At an eighth of its size a JPEG shows its damage too, in a third of the time.
            image.draft(None, (width // 8, height // 8))
            if width * height <= most_pixels:
                image.load()
            return Inspected(width, height, _private(image))
        except PILLOW_ERRORS as error:
            raise Damaged(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _private(image: Image.Image) -> tuple[str, ...]:
    """Everything except artist and copyright: camera, place, comments, profiles, XMP, IPTC."""
    tags = [f"EXIF {_tag_name(tag)}" for tag in image.getexif() if tag not in _CREDIT]
    others = [str(name) for name in image.info if name not in _HARMLESS]
    return tuple(sorted(tags)[:_MOST_NAMED] + sorted(others)[:_MOST_NAMED])


def _tag_name(tag: int) -> str:
    try:
        return ExifTags.Base(tag).name
    except ValueError:
        return hex(tag)
