"""ICC profiles of our own, written byte by byte."""

import itertools
import struct


def cmyk_profile(cyan: tuple[int, int, int]) -> bytes:
    """A CMYK profile of our own (ICC.1:2010, 10.9): Lab of the 16 corners, black ink is black."""
    corners_of_lab = b""
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        lightness, a, b = (0, 0, 0) if k else cyan if c else (100 - 40 * m - 10 * y, 0, 0)
        corners_of_lab += bytes((round(lightness * 2.55), a + 128, b + 128))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity
    table += ramp * 4 + corners_of_lab + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    note = b"text" + bytes(4) + b"CC0\0"
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags, body = b"", b""
    for name, element in ((b"desc", text), (b"cprt", note), (b"wtpt", white), (b"A2B0", table)):
        tags += struct.pack(">4sII", name, 132 + 4 * 12 + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    size = 132 + len(tags) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


def gray_profile(gamma: float) -> bytes:
    """A gray profile of one curve (ICC.1:2010, 8.4.4)."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    note = b"text" + bytes(4) + b"CC0\0"
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags, body = b"", b""
    for name, element in ((b"desc", text), (b"cprt", note), (b"wtpt", white), (b"kTRC", curve)):
        tags += struct.pack(">4sII", name, 132 + 4 * 12 + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    size = 132 + len(tags) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body
