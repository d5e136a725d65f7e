"""Recognises formats without decoding, and detects misleading names and files that are cut short.

Accepting or rejecting a file is in `decoding` and `rejections`.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple


class Kind(NamedTuple):
    """What a file's first bytes say it is.

    Attributes:
        name: Pillow's format name if it has one (`JPEG`, ...), otherwise a common one (`JPEG XL`).
        is_picture: False for documents, text, archives and anything else but raster pictures.
    """

    name: str
    is_picture: bool


_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
    (b"MM\x2a\x00", "TIFF"),
    (b"II\x00\x2a", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\x00\x00\x01\x00", "Windows icon (ICO)"),
    (b"\x00\x00\x02\x00", "Windows cursor (CUR)"),
    (b"icns", "Apple icon (ICNS)"),
    (b"DDS ", "DDS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\x01\xda", "SGI"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile (WMF)"),
    (b"qoif", "QOI"),
    (b"\x0a\x05\x01", "PCX"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"IIU\x00", "Panasonic raw"),
    (b"IIRO", "Olympus raw"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"AT&TFORM", "DjVu"),
    (b"BPG\xfb", "BPG"),
    (b"SIMPLE  =", "FITS"),
)
_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft Office document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"RIFF", "a sound or video recording"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"{\\rtf", "a rich text document"),
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"hevc": "HEIF",
    b"hevx": "HEIF",
    b"heim": "HEIF",
    b"heis": "HEIF",
    b"crx ": "Canon raw (CR3)",
}
_CONTAINER_BRANDS = (b"mif1", b"msf1", b"mif2", b"miaf")
_FORMAT_NAMES = {
    "JPEG2000": "JPEG 2000",
    "WEBP": "WebP",
    "HEIF": "HEIC",
    "MPO": "multi-picture JPEG (MPO)",
}
_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **{".gif": "GIF", ".webp": "WEBP", ".avif": "AVIF", ".jxl": "JPEG XL"},
}
_SAME_SUFFIX = {"MPO": "JPEG"}
_PICTURE_PATTERNS = (
    # Two letters are too few: many texts start with them.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"P[1-7fF]\s+(#|\d|WIDTH)"), "Netpbm (PNM)"),
    (re.compile(rb"\x01\0\0\0.{36} EMF", re.DOTALL), "Windows metafile (EMF)"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
)
_TEXT_PROBE_BYTES = 1024
_SMALLEST_BOX_BYTES = 8
_SMALLEST_BMP_BYTES = 26
_MARKUP = (
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<head", "an HTML page"),
    ("<body", "an HTML page"),
    ("<script", "an HTML page"),
    ("<", "an XML or HTML text"),
    ("{", "a JSON text"),
    ("[", "a JSON text"),
    ("", "a text"),
)
_UNKNOWN = "a file of unknown kind"


def public_name(format_name: str) -> str:
    """Pillow's format name as people write it, such as `WebP` for `WEBP`."""
    return _FORMAT_NAMES.get(format_name, format_name)


def sniff(data: bytes) -> Kind:
    """Recognise a format by the first 1,024 bytes of `data`, whatever its file name."""
    head = data[:_TEXT_PROBE_BYTES]
    for signature, name in _PICTURES:
        if head.startswith(signature):
            return Kind(name, is_picture=True)
    for pattern, name in _PICTURE_PATTERNS:
        if pattern.match(head):
            return Kind(name, is_picture=True)
    if head[4:8] == b"ftyp":
        return _sniff_boxes(head)
    for signature, name in _OTHER_FILES:
        if head.startswith(signature):
            return Kind(name, is_picture=False)
    return Kind(_sniff_text(head), is_picture=False)


def _sniff_boxes(head: bytes) -> Kind:
    """ISO base media files: AVIF and HEIC pictures, and videos (ISO/IEC 14496-12, box `ftyp`)."""
    major = head[8:12]
    if major in _BRANDS:
        return Kind(_BRANDS[major], is_picture=True)
    if major not in _CONTAINER_BRANDS:
        return Kind("a video", is_picture=False)
    # `mif1` only means "a still picture"; the codec is among the compatible brands.
    size = int.from_bytes(head[:4], "big")
    compatible = {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}
    names = {_BRANDS[brand] for brand in compatible if brand in _BRANDS}
    return Kind("AVIF" if "AVIF" in names or not names else min(names), is_picture=True)


def _sniff_text(head: bytes) -> str:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The end of the probe may cut a character in two.
        if error.start < len(head) - 4:
            return _UNKNOWN
        text = head[: error.start].decode("utf-8-sig")
    if "\x00" in text:
        return _UNKNOWN
    start = text.lstrip().lower()
    if "<svg" in start:
        return "an SVG drawing"
    return next(name for markup, name in _MARKUP if start.startswith(markup))


def suffix_mismatch(file_name: str, format_name: str) -> str | None:
    """A note that a file's suffix belongs to another picture format; None if it fits.

    Args:
        file_name: Name as uploaded; suffixes of anything but pictures fit every format.
        format_name: Pillow's name of the format, by content.
    """
    suffix = PurePosixPath(file_name).suffix.lower()
    promised = _SUFFIXES.get(suffix)
    if promised is None or promised == _SAME_SUFFIX.get(format_name, format_name):
        return None
    return f"named {suffix}, but is {public_name(format_name)}"


def is_cut_short(kind: str, data: bytes) -> bool:
    """Whether a file that failed to decode is visibly missing its end.

    Only chooses between `truncated` and `corrupt`: not every cut is visible.
    """
    check = _END_CHECKS.get(kind)
    return check is not None and check(data)


def _bmp_is_cut(data: bytes) -> bool:
    return len(data) < _SMALLEST_BMP_BYTES or int.from_bytes(data[2:6], "little") > len(data)


def _boxes_are_cut(data: bytes) -> bool:
    """Whether the last box of an ISO base media file is longer than the file."""
    if data.startswith(b"\xff\x4f"):
        return not data.endswith(b"\xff\xd9")  # a bare JPEG 2000 codestream
    at = 0
    while at + _SMALLEST_BOX_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < _SMALLEST_BOX_BYTES:
            return False  # 0 means "to the end of the file", the others are damage
        at += size
    return at != len(data)


_END_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "PNG": lambda data: b"IEND" not in data[-4096:],
    "JPEG": lambda data: b"\xff\xd9" not in data[-4096:],
    "MPO": lambda data: b"\xff\xd9" not in data[-4096:],
    "GIF": lambda data: not data.rstrip(b"\x00").endswith(b";"),
    "WEBP": lambda data: int.from_bytes(data[4:8], "little") + 8 > len(data),
    "BMP": _bmp_is_cut,
    "AVIF": _boxes_are_cut,
    "HEIF": _boxes_are_cut,
    "JPEG2000": _boxes_are_cut,
}
