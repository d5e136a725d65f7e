"""Reads headers without decoding: what the decoder is given of a file, frames, and bit depth.

Some decoders hide damage or cost. libjpeg only warns when a picture's data end too early, Pillow
drops the warning, and the rest is grey; an empty scan of a JPEG takes libjpeg as long as a full
one. Pillow calls a PNG with much text damaged. So such files are rejected or trimmed here. EXIF,
IPTC and XMP are in `credit`.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from PIL import Image

from imgflow.errors import Rejected

MOST_SCANS = 100
"""Scans allowed in a JPEG. Encoders write at most 20, and libtiff's limit is 100 too. A scan takes
0.7 ms per megapixel however short it is, so 100 scans at the pixel limit take 7 s."""

MOST_TEXT_BYTES = 4 * 2**20
"""Limit for one text or profile of a PNG, unpacked."""
MOST_TEXTS_BYTES = 32 * 2**20
"""Limit for all that are kept together, and for all that are unpacked, dropped ones included."""

_EOI, _SOS = b"\xff\xd9", b"\xff\xda"
_FIND_EOI = re.compile(_EOI).search  # takes a third of the time of `bytes.find`
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # tables, among the markers of frames
# Like libjpeg, skips whatever precedes the next marker.
_FIND_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL).search
_ALONE = (0x01, *range(0xD0, 0xD9))  # no length follows them
# Eight bytes of ones: enough for the decoder to read ahead, but hardly a block for one that still
# needs data, since no code is all ones.
_PADDING = b"\xff\x00" * 8
_BLOCK_SIDE = 8

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_BYTES = 12  # length, type and checksum
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


class _Frame(NamedTuple):
    kind: int
    width: int
    height: int
    components: int
    data: int
    is_single_scan: bool


def for_decoder(data: bytes, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file that the decoder gets, and notes on what was dropped.

    Args:
        data: Complete file.
        kind: Format name, as sniffed.

    Raises:
        Rejected: `too_many_scans` or `truncated`.
    """
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "PNG":
        return _png(data)
    return data, ()


def _jpeg(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    frame = _first_scan(data)
    if frame is None:
        return data, ()  # the decoder reports the error
    if frame.is_single_scan:
        # Without an end marker, the decoder reports missing data instead of going on.
        end = _FIND_EOI(data, frame.data)
        return (data[: end.start()] + _PADDING if end else data), ()
    if data.count(_SOS, frame.data) >= MOST_SCANS:
        scans = _count_scans(data, frame)
        if scans > MOST_SCANS:
            raise Rejected(
                "too_many_scans",
                f"The JPEG picture is made of {scans:,} scans, and at most {MOST_SCANS} are "
                "accepted.",
            )
    if frame.kind > _PROGRESSIVE:
        return data, ()
    # At least one component has a code, of at least one bit, for each of its blocks.
    blocks = -(-frame.width // _BLOCK_SIDE) * -(-frame.height // _BLOCK_SIDE)
    if (len(data) - frame.data) * 8 < blocks:
        raise Rejected(
            "truncated",
            f"The JPEG picture is incomplete: its {len(data):,} bytes cannot hold the "
            f"{frame.width:,} x {frame.height:,} pixels that it claims.",
        )
    return data, ()


def _first_scan(data: bytes) -> _Frame | None:
    """Walk a JPEG's segments to its first scan (ITU T.81, annex B); None if it has none."""
    at, size, kind = 2, b"", 0
    while found := _FIND_MARKER(data, at):
        marker, at = found[1][0], found.end()
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:  # noqa: PLR2004 - frames
            kind, size = marker, data[at + 3 : at + 8]
        if marker == _SOS[1]:
            if len(size) < 5 or at + 2 >= len(data):  # noqa: PLR2004 - height, width, components
                return None
            height, width, components = struct.unpack(">HHB", size)
            is_single = kind in (_BASELINE, _EXTENDED) and data[at + 2] == components
            return _Frame(kind, width, height, components, at + length, is_single)
        at += length
    return None


def _count_scans(data: bytes, frame: _Frame) -> int:
    """Count scans up to the end of the picture; comments between them may hold any bytes."""
    scans, at = 1, frame.data
    while (found := _FIND_MARKER(data, at)) and found[0] != _EOI:
        at = found.end()
        if found[1][0] not in _ALONE:
            scans += found[0] == _SOS
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _png(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    kept: list[bytes] = []
    notes: list[str] = []
    total, unpacked, kept_to, at = 0, 0, 0, _PNG_SIGNATURE_BYTES
    while at + _PNG_CHUNK_BYTES <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + _PNG_CHUNK_BYTES + length
        if kind in _TEXTS:
            content = data[at + 8 : end - 4]
            packed = _packed(kind, content)
            size = len(content)
            if packed is not None and unpacked >= MOST_TEXTS_BYTES:
                size = MOST_TEXT_BYTES + 1
            elif packed is not None:
                found = _unpacked_bytes(packed)
                size = size if found is None else found
                unpacked += MOST_TEXT_BYTES if found is None else found
            if size <= MOST_TEXT_BYTES and total + size <= MOST_TEXTS_BYTES:
                total += size
            else:
                kept.append(data[kept_to:at])
                kept_to = end
                what = "icc profile" if kind == b"iCCP" else "text"
                notes.append(f"{what} of more than {MOST_TEXT_BYTES // 2**20} MiB ignored")
        at = end
    if not notes:
        return data, ()
    return b"".join((*kept, data[kept_to:])), tuple(dict.fromkeys(notes))


def _packed(kind: bytes, content: bytes) -> bytes | None:
    """The compressed part of a text or profile; None if it is not compressed."""
    rest = content.partition(b"\0")[2]
    if kind == b"iTXt":
        # Method, language and translated keyword come before the text.
        is_packed = rest[:1] not in (b"", b"\0")
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2] if is_packed else None
    return rest[1:] if kind in (b"zTXt", b"iCCP") else None


def _unpacked_bytes(packed: bytes) -> int | None:
    """Length of an unpacked text, at most one byte beyond the limit; None if it is damaged."""
    try:
        return len(zlib.decompressobj().decompress(packed, MOST_TEXT_BYTES + 1))
    except zlib.error:  # possibly after just as much work
        return None


# Frames and pages, counted without decoding them.
#
# Pillow's `n_frames` walks an entire GIF or TIFF, however long; here the walk stops at a limit.


_GIF_TRAILER, _GIF_IMAGE, _GIF_EXTENSION = b";,!"
_BIG_TIFF = 43


def count_frames(image: Image.Image, data: bytes, stop_after: int) -> int:
    """Count frames or pages, at least 1 and at most `stop_after` + 1."""
    if image.format == "GIF":
        return _count_gif(data, stop_after)
    if image.format == "TIFF":
        return _count_tiff(data, stop_after)
    declared = getattr(image, "n_frames", 1)
    return max(1, min(int(declared), stop_after + 1))


def _count_gif(data: bytes, stop_after: int) -> int:
    """Count image descriptors (GIF89a, section 20); a damaged tail ends the count."""
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    count = 0
    try:
        while count <= stop_after and data[at] != _GIF_TRAILER:
            if data[at] == _GIF_IMAGE:
                flags = data[at + 9]
                at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
                count += 1
            elif data[at] == _GIF_EXTENSION:
                at += 2
            else:
                at += 1  # padding that some writers leave between blocks
                continue
            while data[at]:
                at += data[at] + 1
            at += 1
    except IndexError:
        pass  # the end is missing; the decoder finds out whether the first frame is complete
    return max(1, count)


def _count_tiff(data: bytes, stop_after: int) -> int:
    """Count directories along their chain (TIFF 6.0, section 2; BigTIFF), stopping at a loop."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = _BIG_TIFF in (data[2], data[3])
    pointer, size_of_count, size_of_entry = (f"{order}Q", 8, 20) if is_big else (f"{order}I", 2, 12)
    count_format = f"{order}Q" if is_big else f"{order}H"
    seen: set[int] = set()
    try:
        (at,) = struct.unpack_from(pointer, data, 8 if is_big else 4)
        while at and at not in seen and len(seen) <= stop_after:
            (entries,) = struct.unpack_from(count_format, data, at)
            (following,) = struct.unpack_from(
                pointer, data, at + size_of_count + entries * size_of_entry
            )
            seen.add(at)
            at = following
    except (struct.error, OverflowError):
        pass  # the chain leaves the file
    return max(1, len(seen))


# Bit depth, read from the headers of formats that Pillow always decodes to 8 bits a channel.


_ORDINARY = 8


def bits_per_channel(image: Image.Image, data: bytes) -> int:
    """Bits a channel of a file that Pillow decodes to 8; 8 if the file does not say.

    Args:
        image: Picture of any format, opened from `data`.
        data: Complete file.
    """
    if image.mode.startswith("I"):
        return _ORDINARY  # nothing is lost
    try:
        return max(_ORDINARY, _READERS[str(image.format)](image, data))
    except (KeyError, IndexError):
        return _ORDINARY


def _heif(image: Image.Image, _: bytes) -> int:
    return int(image.info.get("bit_depth", _ORDINARY))


def _avif(_: Image.Image, data: bytes) -> int:
    """Read box `pixi` (ISO/IEC 23008-12, 6.5.6): version and flags, channels, bits of each."""
    at = data.find(b"pixi")
    return data[at + 9] if at >= 0 else _ORDINARY


def _jpeg2000(_: Image.Image, data: bytes) -> int:
    """Read marker SIZ (ISO/IEC 15444-1, A.5.1): the first component's bits minus 1, in 7 bits."""
    at = data.find(b"\xff\x4f\xff\x51")
    return (data[at + 42] & 0x7F) + 1 if at >= 0 else _ORDINARY


_READERS = {"HEIF": _heif, "AVIF": _avif, "JPEG2000": _jpeg2000}
