"""Pictures that no camera makes."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from imgflow_tests.images.pictures import encoded, scene


def png(width: int, height: int, rows: bytes) -> bytes:
    """An RGB PNG of any claimed size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def blank(format_name: str, side: int = 3_000) -> bytes:
    """A picture of many pixels in few bytes."""
    options = {
        "AVIF": {"speed": 10},
        "WEBP": {"lossless": True, "method": 0},
        "HEIF": {"enc_params": {"preset": "ultrafast"}},
    }
    image = Image.new("RGB", (side, side), (90, 120, 30))
    return encoded(image, format_name, **options.get(format_name, {}))


def patched_tiff(**values: int) -> bytes:
    """A TIFF in which tags say something else."""
    tags = {"width": 256, "height": 257, "strip_offsets": 273, "rows_per_strip": 278, "sizes": 279}
    data = bytearray(encoded(scene(), "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        for name, value in values.items():
            if tags[name] == tag:
                struct.pack_into("<HII", data, entry + 2, 4, 1, value)
    return bytes(data)


def gif_of_frames(count: int) -> bytes:
    """A GIF of that many frames of one pixel."""
    file = io.BytesIO()
    Image.new("P", (1, 1)).save(file, "GIF")
    whole = file.getvalue()
    start = whole.index(b",")
    return whole[:start] + whole[start:-1] * count + b";"


def many_scans(side: int = 3_000, count: int = 2_000) -> bytes:
    """A progressive JPEG that repeats its last scan: every one is computed over all pixels."""
    data = encoded(Image.new("L", (side, side), 100), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]
