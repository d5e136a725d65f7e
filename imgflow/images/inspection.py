"""What a finished picture turns out to be when somebody else opens it: its size and its secrets."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import ExifTags, Image

from imgflow.images.formats.pillow import pillow_session
from imgflow.images.formats.rejections import PILLOW_ERRORS

_CREDIT = {ExifTags.Base.Artist, ExifTags.Base.Copyright}
_FORMATS = ("JPEG", "PNG", "WEBP")
# What Pillow says of any picture, whoever made it; `exif` is looked into tag by tag.
_HARMLESS = frozenset(
    {
        *("exif", "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "transparency"),
        *("loop", "background", "timestamp", "duration", "gamma", "adobe", "adobe_transform"),
    }
)
_MOST_NAMED = 8


class Damaged(ValueError):
    """A file is no picture that can be decoded; says why."""


@dataclass(frozen=True)
class Inspected:
    """What is in a picture's file.

    Attributes:
        width: in pixels.
        height: in pixels.
        private: names of the metadata that no output should have, such as `EXIF GPSInfo`.
    """

    width: int
    height: int
    private: tuple[str, ...]


def inspect_output(data: bytes, most_pixels: int) -> Inspected:
    """Decode a finished JPEG, PNG or WebP completely, and list its private metadata.

    Args:
        data: the file.
        most_pixels: of a picture with more, only the size is found out; it is not decoded.

    Raises:
        Damaged: it is none of these, or its pixels cannot be decoded.
    """
    with pillow_session(max(1, most_pixels)):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            # A JPEG's damage shows at an eighth of its size too, in a third of the time.
            image.draft(None, (width // 8, height // 8))
            if width * height <= most_pixels:
                image.load()
            return Inspected(width, height, _private(image))
        except PILLOW_ERRORS as error:
            raise Damaged(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _private(image: Image.Image) -> tuple[str, ...]:
    """Whatever is not artist or copyright: camera, place, comments, profiles, XMP, IPTC."""
    tags = [f"EXIF {_tag_name(tag)}" for tag in image.getexif() if tag not in _CREDIT]
    others = [str(name) for name in image.info if name not in _HARMLESS]
    return tuple(sorted(tags)[:_MOST_NAMED] + sorted(others)[:_MOST_NAMED])


def _tag_name(tag: int) -> str:
    try:
        return ExifTags.Base(tag).name
    except ValueError:
        return hex(tag)
