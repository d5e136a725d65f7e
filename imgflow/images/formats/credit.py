"""The three facts that matter here: orientation, artist and copyright. All else is dropped."""

import struct
from dataclasses import dataclass

from PIL import Image

from imgflow.images.formats.rejections import PILLOW_ERRORS
from imgflow.images.rights import credit_beside_exif

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
