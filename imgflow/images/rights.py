"""Artist and copyright where EXIF does not say them: IPTC, XMP, and the text of a PNG.

Only these two are looked for; everything else in there stays in the upload.
"""

import html
import re
from typing import Any

from PIL import Image

from imgflow.images.formats.rejections import PILLOW_ERRORS

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
