"""Damaged inputs, each told by its number alone: for the fuzzer and its tests."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from imgflow.depth.readers.registry import is_depth_key
from imgflow.images.formats.pillow import MEDIA_TYPES
from imgflow_tests.depth.tables import npy_bytes
from imgflow_tests.images.pictures import encoded, scene

LARGEST_SEED = 12_000
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
CELLS = (
    *("", " ", "nan", "NaN", "-nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "3.5e38", "1e400"),
    *("0", "-0", "1e39", "9" * 40, "0x1", "1_0", "+1", "--1", '"1"', '"', '"1', "é", "\0", "1,5"),
    *("-999.25", ".", "1.", ".5", "e5", "\u2028", "\u0661", "true", "None", "9000.1", "1 2"),
)
SHAPES = (
    *(
        "(5, -3)",
        "(-5, 3)",
        "(True, 3)",
        "(5, True)",
        "(0, 3)",
        "(3, 0)",
        "()",
        "(3,)",
        "(3, 2, 1)",
    ),
    *(
        "(1000000000000, 3)",
        "(3, 1000000000000)",
        "(3, 2)",
        "[3, 2]",
        "3",
        "'x'",
        "(3, 2" + ")" * 9,
    ),
    *("(" * 300, "(3L, 2L)", "(3.0, 2)", "(1e3, 2)", "(3, 2),)", "(-1, -1)", "None", "(3, 2)\\n"),
)
KINDS = (
    *("<f8", ">f8", "<f4", "<f2", "<i1", "|u1", "<u8", "|b1", "<c16", "<f16", "|O", "<M8[s]"),
    *("<m8", "|V8", "<U3", "|S2", "", "f", ">i4", "<i9", "[('a','<f8')]", "<f8,<f8", "?"),
)


def seeds(kind: str) -> list[tuple[str, bytes]]:
    """Keys and bytes to begin from."""
    return _depth_seeds() if kind == "depth" else _photo_seeds()


def mutated(kind: str, seed: int, number: int) -> tuple[str, bytes]:
    """The key and the bytes of a case."""
    rng = random.Random(f"{seed} {kind} {number}")
    key, data = rng.choice(seeds(kind))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        fitting = [by for suffix, by in STRUCTURED if key.endswith(suffix)]
        way = rng.choice((*fitting, *fitting, _bytes, _numbers, _pieces))
        data = way(rng, data) if data else rng.randbytes(9)
    if rng.random() < 0.01:  # under another name
        key = rng.choice(seeds(kind))[0]
    return key, data


def _bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 12))):
        at = rng.randrange(min(len(changed), rng.choice((32, 128, 512, 10**6))))
        changed[at] = rng.choice((0, 1, 10, 34, 44, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def _numbers(rng: random.Random, data: bytes) -> bytes:
    format_ = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(format_)
    if len(data) < size:
        return data
    at = rng.randrange(min(len(data) - size + 1, rng.choice((64, 512, 10**6))))
    value = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
    return data[:at] + struct.pack(format_, value) + data[at + size :]


def _pieces(rng: random.Random, data: bytes) -> bytes:
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return rng.choice(
        (
            lambda: data[:last],
            lambda: data[:first] + data[last:],
            lambda: data[:last] + data[first:],
            lambda: data[:first] + rng.randbytes(rng.randrange(1, 40)) + data[first:],
            lambda: data + data[first:last],
        )
    )()


def _npy(rng: random.Random, data: bytes) -> bytes:
    """Another header before the same numbers."""
    text = (
        f"{{'descr': {rng.choice(KINDS)!r}, 'fortran_order': "
        f"{rng.choice(('True', 'False', 'False', 'False', '0', 'None'))}, "
        f"'shape': {rng.choice(SHAPES)}{rng.choice((', }', '}', ', x}', ' '))}"
    ).encode()
    if rng.random() < 0.3:
        text = _pieces(rng, text)
    text += b" " * rng.randrange(64) + rng.choice((b"\n", b""))
    version = rng.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data[128:]


def _csv(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    separator = rng.choice((b",", b";", b"\t"))
    cells = lines[at].split(separator)
    what = rng.randrange(6)
    if what < 3:
        cells[rng.randrange(len(cells))] = rng.choice(CELLS).encode()
        lines[at] = separator.join(cells)
    elif what == 3:
        lines[at:at] = [rng.choice((b"", b",,", b" ", b"\r", lines[at]))] * rng.choice((1, 3, 300))
    elif what == 4:
        rng.shuffle(lines)
    else:
        lines[at] = separator.join(rng.choice(CELLS).encode() for _ in range(len(cells)))
    return b"\n".join(lines)


def _gzip(rng: random.Random, data: bytes) -> bytes:
    """Damage to what is inside."""
    try:
        inside = zlib.decompressobj(wbits=31).decompress(data, 2**20)
    except zlib.error:
        return data
    way = rng.choice((_bytes, _pieces, _csv, _npy))
    changed = way(rng, inside) if inside else b""
    if rng.random() < 0.2:
        return gzip.compress(changed[:40], 1, mtime=0) + gzip.compress(changed[40:], 1, mtime=0)
    return gzip.compress(changed, 1, mtime=0)


def _png(rng: random.Random, data: bytes) -> bytes:
    """Damage to a chunk whose checksum is right all the same."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    place = rng.randrange(len(chunks))
    name, body = chunks[place]
    what = rng.randrange(4)
    if what == 0:
        texts = ('{"depth_step": %s, "depth_first": %s}', '"depth_step"%s%s', '{"depth_step":[%s%s')
        text = rng.choice(texts) % (rng.choice(CELLS), rng.choice(CELLS))
        chunks.insert(1, (b"tEXt", b"a\0" + text.encode("latin-1", "replace")))
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    elif what == 2:
        names = (b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"zTXt")
        chunks.insert(1, (rng.choice(names), rng.randbytes(rng.randrange(60))))
    else:
        chunks[place] = name, _numbers(rng, body) if body else rng.randbytes(5)
    written = data[:8]
    for name, body in chunks:
        written += struct.pack(">I", len(body)) + name + body
        written += struct.pack(">I", zlib.crc32(name + body))
    return written


def _tiff(rng: random.Random, data: bytes) -> bytes:
    """Another tag, type, count or value in the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 10:
        return data
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    if directory + 2 > len(data):
        return data
    (entries,) = struct.unpack_from(f"{order}H", data, directory)
    at = directory + 2 + 12 * rng.randrange(max(1, min(entries, 40)))
    if at + 12 > len(data):
        return data
    tag, type_, count, value = struct.unpack_from(f"{order}HHII", data, at)
    what = rng.randrange(4)
    if what == 0:
        tag = rng.choice((256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 317, 322, 339, 34665))
    elif what == 1:
        type_ = rng.randrange(14)
    elif what == 2:
        count = rng.choice(NUMBERS)
    else:
        value = rng.choice(NUMBERS)
    return data[:at] + struct.pack(f"{order}HHII", tag, type_, count, value) + data[at + 12 :]


def _jpeg(rng: random.Random, data: bytes) -> bytes:
    """A segment changed, dropped, doubled, or put before another."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 255 and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + max(2, length)
    if not segments:
        return data
    place = rng.randrange(len(segments))
    marker, body = segments[place]
    what = rng.randrange(5)
    if what == 0:
        segments[place] = marker, _numbers(rng, body) if len(body) > 4 else rng.randbytes(6)
    elif what == 1:
        del segments[place]
    elif what == 2:
        segments.insert(rng.randrange(len(segments)), (marker, body))
    elif what == 3:
        segments[place] = rng.choice((0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xE1, 0xE2, 0xEE, 0xFE)), body
    else:
        exif = b"Exif\0\0" + _tiff(rng, _exif())
        segments.insert(0, (0xE1, exif))
    written = data[:2]
    for marker, body in segments:
        written += struct.pack(">BBH", 255, marker, min(65_535, len(body) + 2)) + body[:65_533]
    return written + data[at:]


def _exif() -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274], tags[315], tags[282] = 6, "An artist", TiffImagePlugin.IFDRational(1, 0)
    out = io.BytesIO()
    out.write(b"II*\0\x08\0\0\0")
    tags.save(out)
    return out.getvalue()


Way = Callable[[random.Random, bytes], bytes]
STRUCTURED: tuple[tuple[str, Way], ...] = (
    *((".csv", _csv), (".tsv", _csv), (".gz", _gzip), (".npy", _npy), (".png", _png)),
    *((".tif", _tiff), (".tiff", _tiff), (".jpg", _jpeg), (".jpeg", _jpeg), (".JPG", _jpeg)),
)


def _map_of(pixels: np.ndarray, format_name: str, step: str = "") -> bytes:
    out = io.BytesIO()
    options = {}
    text = f'{{"depth_first": 9000.1, "depth_step": {step}}}' if step else ""
    if text and format_name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("depth", text)
    elif text:
        options["description"] = text
    Image.fromarray(pixels).save(out, format_name, **options)
    return out.getvalue()


@cache
def _depth_seeds() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(5)
    depths = np.round(9000.1 + 0.1 * np.arange(12), 1)
    pixels = rng.integers(0, 256, (12, 5))
    rows = [f"{d}," + ",".join(map(str, row)) for d, row in zip(depths, pixels, strict=True)]
    text = "\n".join(["depth,a,b,c,d,e", *rows, ""]).encode()
    floats = text.replace(b",1", b",-1.25e-3").replace(b",2", b",nan")
    unsorted = "\n".join(["a,DEPTH,b", *(f"{n},{(n * 7) % 11},{n}" for n in range(11))]).encode()
    table = np.column_stack([depths, pixels])
    found = [
        ("a.csv", text),
        ("holes.csv", text.replace(b",1", b",")),
        ("floats.csv", floats),
        ("unsorted.csv", unsorted),
        ("down.csv", b"\n".join([b"depth,a,b,c,d,e", *reversed(text.split(b"\n")[1:])])),
        ("a.tsv", text.replace(b",", b"\t")),
        ("semicolons.csv", text.replace(b",", b";").replace(b".", b",")),
        ("far.csv", b"depth,x\n-1e308,1\n1e308,2\n"),
        ("steps.csv", b"depth,x\n0,1\n1e-60,2\n1e200,3\n1e300,3e38\n"),
        ("one.csv.gz", gzip.compress(b"depth,a\n1,2\n2,3\n", mtime=0)),
        ("a.csv.gz", gzip.compress(text, mtime=0)),
        ("a.npy.gz", gzip.compress(npy_bytes(table), mtime=0)),
        ("map.depth.png", _map_of(pixels.astype(np.uint8), "PNG", "0.1")),
        ("map16.depth.png", _map_of(pixels.astype(np.uint16), "PNG")),
        ("map.depth.tif", _map_of(pixels.astype(np.uint8), "TIFF", "1e-3")),
        ("map16.depth.tif", _map_of(pixels.astype(np.uint16), "TIFF")),
        ("mapf.depth.tiff", _map_of(pixels.astype(np.float32), "TIFF", "-2")),
        *(
            (f"{kind.strip('<>')}.npy", npy_bytes(table.astype(kind)))
            for kind in ("<f8", ">f8", "<f4")
        ),
        *((f"{kind}.npy", npy_bytes(table.astype(kind))) for kind in ("i4", "u2", "i1", "f2")),
    ]
    return found + [(key, data) for key, data in _corpus() if is_depth_key(key)]


@cache
def _photo_seeds() -> list[tuple[str, bytes]]:
    small = scene(20, 14)
    found = []
    for name in MEDIA_TYPES:
        if name == "MPO":
            continue
        suffix = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "HEIF": "heic"}.get(name, name)
        image = small.convert("1" if name == "XBM" else "RGB")
        try:
            found.append((f"a.{suffix.lower()}", encoded(image, name)))
        except (KeyError, OSError, ValueError):
            continue
    for number, mode in enumerate(("L", "LA", "RGBA", "P", "1", "I;16")):
        image = small.convert("L").convert("I;16") if mode == "I;16" else small.convert(mode)
        found.append((f"{number}.png", encoded(image, "PNG")))
        found.append((f"{number}.tif", encoded(image, "TIFF")))
    exif = Image.Exif()
    exif[274], exif[315], exif[282] = 6, "An artist", TiffImagePlugin.IFDRational(1, 0)
    found += [
        ("exif.jpg", encoded(small, "JPEG", exif=exif)),
        ("progressive.jpg", encoded(small, "JPEG", progressive=True)),
        ("cmyk.jpg", encoded(small.convert("CMYK"), "JPEG")),
        ("gray.jpg", encoded(small.convert("L"), "JPEG")),
        ("exif.png", encoded(small, "PNG", exif=exif)),
        ("exif.webp", encoded(small, "WEBP", exif=exif)),
        *(
            (f"{how}.tif", encoded(small, "TIFF", compression=how))
            for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        ("two.gif", encoded(small, "GIF", save_all=True, append_images=[scene(20, 14, 2)])),
        ("lossless.webp", encoded(small, "WEBP", lossless=True)),
    ]
    return found + [(key, data) for key, data in _corpus() if not is_depth_key(key)]


@cache
def _corpus() -> list[tuple[str, bytes]]:
    """Small files of the test corpus, where there is one."""
    place = os.environ.get("IMGFLOW_TEST_CORPUS", "")
    if not place or not Path(place).is_dir():
        return []
    files = sorted(file for file in Path(place).rglob("*") if file.is_file())
    return [
        (file.name, file.read_bytes())
        for file in files
        if 0 < file.stat().st_size <= LARGEST_SEED and file.suffix not in (".py", ".md", ".txt")
    ]
