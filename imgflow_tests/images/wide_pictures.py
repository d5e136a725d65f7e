"""Pictures of 16 bits a channel, written byte by byte, since Pillow writes none in colour."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png16(samples: np.ndarray, **chunks: bytes) -> bytes:
    """A PNG of (height, width, channels) uint16: gray with alpha, RGB or RGBA."""
    height, width, channels = samples.shape

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    colour = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        + b"".join(chunk(name.encode(), body) for name, body in chunks.items())
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def iccp(profile: bytes) -> bytes:
    """The body of a chunk iCCP."""
    return b"p\0\0" + zlib.compress(profile)


def tiff16(samples: np.ndarray, *, order: str = "<", deflate: bool = False) -> bytes:
    """A TIFF of (height, width, 3 or 4) uint16 in one strip, little or big endian."""
    height, width, channels = samples.shape
    body = samples.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if deflate else body
    at = 8 + len(body) + len(body) % 2
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, at),
        (259, 3, 1, 8 if deflate else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(body)),
    ]
    if channels == 4:
        entries.append((338, 3, 1, 2))
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        code = "HH" if kind == 3 and count == 1 else "I"
        values = (value, 0) if code == "HH" else (value,)
        directory += struct.pack(f"{order}HHI{code}", tag, kind, count, *values)
    bits = struct.pack(f"{order}{channels}H", *(16,) * channels)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at + len(bits))
    return head + body.ljust(at - 8, b"\0") + bits + directory + bytes(4)


def gray_png16_samples(data: bytes) -> np.ndarray:
    """All samples of a 16-bit PNG of gray, or gray with alpha: (height, width, 1 or 2) uint16."""
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    assert (depth, interlace) == (16, 0)
    channels = {0: 1, 4: 2}[colour]
    stream, at = b"", 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size) == (zlib.crc32(name + body),)
        stream += body if name == b"IDAT" else b""
        at += 12 + size
    return _unfiltered(zlib.decompress(stream), width, height, 2 * channels).reshape(
        height, width, channels
    )


def _unfiltered(stream: bytes, width: int, height: int, step: int) -> np.ndarray:
    """Undo the filters of PNG (ISO/IEC 15948, section 9)."""
    row_bytes = width * step
    above = bytearray(row_bytes)
    out = bytearray()
    for y in range(height):
        kind, row = stream[y * (row_bytes + 1)], bytearray(row_bytes)
        raw = stream[y * (row_bytes + 1) + 1 : (y + 1) * (row_bytes + 1)]
        for x in range(row_bytes):
            a = row[x - step] if x >= step else 0
            b, c = above[x], above[x - step] if x >= step else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (raw[x] + (0, a, b, (a + b) // 2, nearest)[kind]) & 255
        out += row
        above = row
    return np.frombuffer(bytes(out), ">u2").astype(np.uint16)
