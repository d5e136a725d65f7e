"""How many frames or pages a file holds, counted without decoding them.

Pillow's `n_frames` walks all of a GIF or TIFF however long it is; here the walk stops at a limit.
"""

import struct

from PIL import Image

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
        pass  # the end is missing; the decoder says whether the first frame is whole
    return max(1, count)


def _count_tiff(data: bytes, stop_after: int) -> int:
    """Count directories by following their chain (TIFF 6.0, section 2; BigTIFF); loops end it."""
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
