"""The three facts that matter here: orientation, artist and copyright. All else is dropped."""

import html
import re
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image

from imgflow.images.formats.rejections import PILLOW_ERRORS

# Artist and copyright where EXIF does not say them: IPTC, XMP, and the text of a PNG.
#
# Only these two are looked for; everything else in there stays in the upload.


_BY_LINE, _COPYRIGHT_NOTICE = (2, 80), (2, 116)  # IPTC IIM 4.2, record 2
_LONGEST_XMP_BYTES = 1_000_000


def _xmp_pattern(name: str) -> "re.Pattern[str]":
    """The first item of an array of Dublin Core (XMP part 1, 8.3), however it is laid out."""
    return re.compile(
        rf"<dc:{name}\s*>\s*<rdf:(?:Alt|Seq|Bag)\b[^>]*>\s*<rdf:li\b[^>]*>([^<]*)</rdf:li\s*>"
    )


_CREATOR, _RIGHTS = _xmp_pattern("creator"), _xmp_pattern("rights")


def credit_beside_exif(image: Image.Image) -> tuple[str, str]:
    """Artist and copyright of a loaded picture, empty where they are not said."""
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


_ORIENTATION = 0x0112
_ARTIST = 0x013B
_COPYRIGHT = 0x8298
_CARRIERS = (
    *("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"),
    *("photoshop", "Author", "Copyright"),
)
_ASCII_TYPE = 2
_INLINE_BYTES = 4  # values up to this size stand in the directory itself
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
"""What makes a stored picture of an EXIF orientation (2 to 8) upright (Exif 2.32, 4.6.4 A)."""

TURNED = frozenset({5, 6, 7, 8})
"""Orientations that exchange width and height."""


@dataclass(frozen=True)
class ExifFacts:
    """What is kept of a file's EXIF block.

    Attributes:
        orientation: 1 to 8; 1 where there is none or it is out of range.
        credit: An EXIF block (`Exif` prefix included) with artist and copyright only, or `b""`.
        is_broken: The block could not be read and was ignored.
    """

    orientation: int = 1
    credit: bytes = b""
    is_broken: bool = False


def read_exif(image: Image.Image) -> ExifFacts:
    """Read the facts of an opened, not yet loaded image; a broken block is not an error."""
    if image.format != "TIFF" and not any(name in image.info for name in _CARRIERS):
        return ExifFacts()
    try:
        tags = image.getexif()
        orientation, artist, rights = (
            tags.get(_ORIENTATION),
            tags.get(_ARTIST),
            tags.get(_COPYRIGHT),
        )
        # Pillow may have met the damage already when it opened the file, and then keeps quiet.
        is_broken = len(tags) == 0 and bool(image.info.get("exif"))
    except PILLOW_ERRORS:
        orientation = artist = rights = None
        is_broken = True
    if image.format == "HEIF":
        # The container's own turn is applied when it is decoded, and its EXIF then says 1.
        orientation = image.info.get("original_orientation")
    return ExifFacts(
        orientation=orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1,
        is_broken=is_broken,
        credit=_credit(image, _text_bytes(artist), _text_bytes(rights)),
    )


def _credit(image: Image.Image, artist: bytes, rights: bytes) -> bytes:
    """What EXIF says; each of the two from elsewhere where EXIF is silent."""
    if not artist or not rights:
        other_artist, other_rights = credit_beside_exif(image)
        artist = artist or _text_bytes(other_artist.encode())
        rights = rights or _text_bytes(other_rights.encode())
    return _credit_block({_ARTIST: artist, _COPYRIGHT: rights})


def _text_bytes(value: object) -> bytes:
    # Pillow decodes EXIF text as Latin-1, so this gives back the file's own bytes, UTF-8 included.
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    return value.rstrip(b"\x00 ")[:_LONGEST_CREDIT_BYTES] if isinstance(value, bytes) else b""


def _credit_block(texts: dict[int, bytes]) -> bytes:
    """Write a TIFF directory of text tags (TIFF 6.0, section 2).

    Pillow's own writer is not used, since it makes `?` of every character outside ASCII.
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
