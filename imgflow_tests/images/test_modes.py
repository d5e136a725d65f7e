import struct

import numpy as np
import pytest
from PIL import Image

from imgflow_tests.images.pictures import (
    corners,
    encoded,
    gray_of,
    pixels,
    process,
    scene,
)

MODES = {
    "1": ("TIFF", "L"),
    "L": ("TIFF", "L"),
    "P": ("TIFF", "L"),
    "LA": ("TIFF", "LA"),
    "PA": ("TIFF", "LA"),
    "RGB": ("TIFF", "L"),
    "RGBX": ("TIFF", "L"),
    "RGBA": ("TIFF", "LA"),
    "CMYK": ("TIFF", "L"),
    "YCbCr": ("TIFF", "L"),
    "LAB": ("TIFF", "L"),
    "I": ("TIFF", "L"),
    "F": ("TIFF", "I;16"),
    "I;16": ("TIFF", "I;16"),
    "I;16B": ("TIFF", "I;16"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_gives_the_expected_gray_levels(mode):
    format_name, expected_mode = MODES[mode]
    base = corners("L")
    if mode == "LAB":
        source = corners().convert("LAB")
    elif mode.startswith("I;16"):
        source = base.convert("I").point(lambda v: v * 257).convert("I;16")
        if mode == "I;16B":
            swapped = np.asarray(source).astype(">u2").tobytes()
            source = Image.frombytes("I;16B", source.size, swapped)
    elif mode in ("PA", "LA", "RGBA"):
        source = corners("RGBA")
        source.putalpha(Image.linear_gradient("L").resize(source.size))
        source = source.convert(mode)
    elif mode == "1":
        source = base.point(lambda v: 255 if v > 100 else 0).convert("1")
    elif mode == "F":
        source = base.convert("F").point(lambda v: v * (1 / 255) + 0)
    elif mode in ("I", "L"):
        source = base.convert(mode)
    else:
        source = corners(mode)
    processed = process(encoded(source, format_name))
    output = processed.outputs["grayscale"]
    gray = pixels(output)
    assert output.mode == expected_mode
    levels = gray[..., 0] if gray.ndim == 3 else gray
    found = [int(levels[y, x]) for y, x in ((3, 3), (3, 36), (20, 3), (20, 36))]
    expected = [0, 255, 0, 255] if mode == "1" else [76, 150, 29, 255]
    if expected_mode == "I;16":
        expected = [level * 257 for level in expected]
    tolerance = {"LAB": 12, "YCbCr": 1, "PA": 20, "P": 20}.get(mode, 0)
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, (found, expected)
    assert processed.outputs["thumbnail"].width == 40


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_cmyk_without_profile_has_ink_dark_and_paper_white(format_name):
    image = Image.new("CMYK", (40, 24), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (0, 0, 20, 12))
    image.paste((0, 0, 0, 255), (20, 0, 40, 12))
    options = {"quality": 100} if format_name == "JPEG" else {}
    processed = process(encoded(image, format_name, **options))
    gray = pixels(processed.outputs["grayscale"]).astype(int)
    assert abs(gray[3, 3] - 76) <= 4
    assert gray[3, 36] <= 2
    assert gray[20, 20] >= 253
    red = pixels(processed.outputs["thumbnail"])[3, 3].astype(int)
    assert red[0] > 200
    assert red[1] < 60


def test_the_adobe_cmyk_sample_shows_red_letters_on_black(corpus):
    cmyk = process((corpus / "formats/pil_sample_cmyk.jpg").read_bytes())
    rgb = process((corpus / "formats/pil_sample_rgb.jpg").read_bytes())
    a = pixels(cmyk.outputs["thumbnail"]).astype(int)
    b = pixels(rgb.outputs["thumbnail"]).astype(int)
    assert abs(a - b).mean() < 6
    assert a[0, 0, 0] > 200
    assert a[0, 0, 1] < 40
    assert a[99, 99].max() < 10


def test_a_tiled_tiff_is_put_together_right():
    levels = np.asarray(scene(40, 24).convert("L").resize((40, 24)))
    tiles = [
        np.pad(levels[y : y + 16, x : x + 16], ((0, max(0, y - 8)), (0, max(0, x - 24))))
        for y in (0, 16)
        for x in (0, 16, 32)
    ]
    body = b"".join(tile.tobytes() for tile in tiles)
    assert len(body) == 6 * 256
    values = struct.pack("<6I", *(8 + 256 * n for n in range(6))) + struct.pack("<6I", *[256] * 6)
    at = 8 + len(body)
    entries = [
        (256, 3, 1, 40),
        (257, 3, 1, 24),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 4, 6, at),
        (325, 4, 6, at + 24),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    data = b"II*\0" + struct.pack("<I", at + 48) + body + values + directory
    np.testing.assert_array_equal(gray_of(data), levels)
