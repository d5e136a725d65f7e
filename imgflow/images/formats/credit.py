"""Reads the metadata that is kept: orientation, artist and copyright, from EXIF, IPTC, XMP or PNG.

All other metadata is dropped. ICC profiles are in `imgflow.images.colour`.
"""

import html
import re
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image

from imgflow.images.formats.rejections import PILLOW_ERRORS

# Artist and copyright outside EXIF: in IPTC, XMP, and the text of a PNG.
#
# Only these two are read; everything else there stays in the upload.


_BY_LINE, _COPYRIGHT_NOTICE = (2, 80), (2, 116)  # IPTC IIM 4.2, record 2
_LONGEST_XMP_BYTES = 1_000_000


def _xmp_pattern(name: str) -> "re.Pattern[str]":
    """Match the first item of a Dublin Core array (XMP part 1, 8.3) of any kind."""
    return re.compile(
        rf"<dc:{name}\s*>\s*<rdf:(?:Alt|Seq|Bag)\b[^>]*>\s*<rdf:li\b[^>]*>([^<]*)</rdf:li\s*>"
    )


_CREATOR, _RIGHTS = _xmp_pattern("creator"), _xmp_pattern("rights")


def credit_beside_exif(image: Image.Image) -> tuple[str, str]:
    """Artist and copyright of a picture, each empty if missing."""
    places = (_iptc(image), _xmp(image), _png_text(image))
    artist, rights = (next(filter(None, said), "") for said in zip(*places, strict=True))
    return artist, rights


def _iptc(image: Image.Image) -> tuple[str, str]:
    if image.format not in ("JPEG", "MPO", "TIFF"):
        return "", ""
    from PIL import IptcImagePlugin

    try:
        found: dict[Any, Any] = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]  # takes every kind of picture
    except PILLOW_ERRORS:
        return "", ""
    return _iptc_text(found.get(_BY_LINE)), _iptc_text(found.get(_COPYRIGHT_NOTICE))


def _iptc_text(value: object) -> str:
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, bytes):
        return ""
    try:
        return first.decode()
    except UnicodeDecodeError:
        return first.decode("latin-1")


def _xmp(image: Image.Image) -> tuple[str, str]:
    packet = image.info.get("xmp")
    if not isinstance(packet, bytes):
        return "", ""
    text = packet[:_LONGEST_XMP_BYTES].decode("utf-8", "replace")
    said = (pattern.search(text) for pattern in (_CREATOR, _RIGHTS))
    artist, rights = (html.unescape(match[1]).strip() if match else "" for match in said)
    return artist, rights


def _png_text(image: Image.Image) -> tuple[str, str]:
    if image.format != "PNG":
        return "", ""
    author, rights = (image.info.get(keyword) for keyword in ("Author", "Copyright"))
    return (str(author or ""), str(rights or ""))


# EXIF: reading the three facts, and writing the block that outputs carry.

_ORIENTATION = 0x0112
_ARTIST = 0x013B
_COPYRIGHT = 0x8298
_CARRIERS = (
    *("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"),
    *("photoshop", "Author", "Copyright"),
)
_ASCII_TYPE = 2
_INLINE_BYTES = 4  # values up to this size are in the directory itself
_LONGEST_CREDIT_BYTES = 4096

UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transform that turns a picture of each EXIF orientation upright (Exif 2.32, 4.6.4 A)."""

TURNED = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""


@dataclass(frozen=True)
class ExifFacts:
    """What is kept of a file's metadata.

    Attributes:
        orientation: 1 to 8; 1 if it is missing or out of range.
        credit: EXIF block (`Exif` prefix included) with artist and copyright only, or `b""`.
        is_broken: True if the EXIF block could not be read and was ignored.
    """

    orientation: int = 1
    credit: bytes = b""
    is_broken: bool = False


def read_exif(image: Image.Image) -> ExifFacts:
    """Read the metadata of an opened image; a broken EXIF block is not an error."""
    if image.format != "TIFF" and not any(name in image.info for name in _CARRIERS):
        return ExifFacts()
    try:
        tags = image.getexif()
        orientation, artist, rights = (
            tags.get(_ORIENTATION),
            tags.get(_ARTIST),
            tags.get(_COPYRIGHT),
        )
        # Pillow may have found the damage on opening the file, and then raises nothing here.
        is_broken = len(tags) == 0 and bool(image.info.get("exif"))
    except PILLOW_ERRORS:
        orientation = artist = rights = None
        is_broken = True
    if image.format == "HEIF":
        # Decoding applies the container's own rotation and resets its EXIF orientation to 1.
        orientation = image.info.get("original_orientation")
    return ExifFacts(
        orientation=orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1,
        is_broken=is_broken,
        credit=_credit(image, _text_bytes(artist), _text_bytes(rights)),
    )


def _credit(image: Image.Image, artist: bytes, rights: bytes) -> bytes:
    """Artist and copyright, each from EXIF or, if missing there, from elsewhere in the file."""
    if not artist or not rights:
        other_artist, other_rights = credit_beside_exif(image)
        artist = artist or _text_bytes(other_artist.encode())
        rights = rights or _text_bytes(other_rights.encode())
    return _credit_block({_ARTIST: artist, _COPYRIGHT: rights})


def _text_bytes(value: object) -> bytes:
    # Pillow decodes EXIF text as Latin-1, so this restores the file's own bytes, UTF-8 included.
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    return value.rstrip(b"\x00 ")[:_LONGEST_CREDIT_BYTES] if isinstance(value, bytes) else b""


def _credit_block(texts: dict[int, bytes]) -> bytes:
    """Write a TIFF directory of text tags (TIFF 6.0, section 2).

    Pillow's own writer would replace every character outside ASCII with `?`.
    """
    entries = sorted((tag, text + b"\x00") for tag, text in texts.items() if text)
    if not entries:
        return b""
    directory = struct.pack(">H", len(entries))
    values = b""
    values_start = 8 + 2 + 12 * len(entries) + 4
    for tag, text in entries:
        if len(text) <= _INLINE_BYTES:
            place = text.ljust(_INLINE_BYTES, b"\x00")
        else:
            place = struct.pack(">I", values_start + len(values))
            values += text + b"\x00" * (len(text) % 2)
        directory += struct.pack(">HHI", tag, _ASCII_TYPE, len(text)) + place
    return b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08" + directory + bytes(4) + values
