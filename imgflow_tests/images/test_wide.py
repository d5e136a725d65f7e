import io

import numpy as np
import pytest
from PIL import Image

from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    encoded,
    gray_of,
    luma_reference,
    opened,
    pixels,
    process,
    scene,
)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_a_16_bit_ramp_stays_16_bit_level_by_level(format_name):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    processed = process(encoded(Image.fromarray(ramp), format_name))
    output = processed.outputs["grayscale"]
    gray = pixels(output)
    assert (output.mode, gray.dtype) == ("I;16", np.uint16)
    np.testing.assert_array_equal(gray, ramp)
    thumbnail = pixels(processed.outputs["thumbnail"])
    assert thumbnail.dtype == np.uint8
    assert abs(thumbnail.astype(int) - (ramp >> 8)).max() <= 6


def test_a_big_endian_16_bit_tiff_is_read_right():
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    image = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    np.testing.assert_array_equal(gray_of(encoded(image, "TIFF")), ramp)


def test_a_transparent_level_of_16_bit_gray_survives_in_both_outputs():
    levels = np.full((8, 8), 30000, dtype=np.uint16)
    levels[:4] = 1234
    processed = process(encoded(Image.fromarray(levels), "PNG", transparency=1234))
    gray = opened(processed.outputs["grayscale"])
    assert gray.info["transparency"] == 1234
    np.testing.assert_array_equal(np.asarray(gray), levels)
    thumbnail = pixels(processed.outputs["thumbnail"])
    assert processed.outputs["thumbnail"].mode == "LA"
    assert set(thumbnail[:4, :, 1].flat) == {0}
    assert set(thumbnail[4:, :, 1].flat) == {255}
    assert set(thumbnail[4:, :, 0].flat) == {117}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 1000, 65535], [0, 1000, 65535]),
        ([-100, 0, 100], [0, 32768, 65535]),
        ([0, 500_000, 1_000_000], [0, 32768, 65535]),
        ([-5, -5, -5], [0, 0, 0]),
    ],
)
def test_32_bit_integers_follow_the_written_rule(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    assert gray_of(encoded(image, "TIFF"))[0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 32768, 65535]),
        ([0.25, 0.25, 0.25], [16384, 16384, 16384]),
        ([10.0, 20.0, 30.0], [0, 32768, 65535]),
        ([-3e38, 0.0, 3e38], [0, 32768, 65535]),
        ([0.0, float("nan"), 1.0], [0, 0, 65535]),
        ([0.0, float("inf"), 1.0], [0, 65535, 65535]),
        ([float("nan"), float("nan"), float("nan")], [0, 0, 0]),
    ],
)
def test_floats_follow_the_written_rule(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    processed = process(encoded(image, "TIFF"))
    assert pixels(processed.outputs["grayscale"])[0].tolist() == expected
    assert processed.facts.notes


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_a_heic_is_read_at_every_depth_with_and_without_alpha(depth):
    from pillow_heif import encode, register_heif_opener

    register_heif_opener()
    levels = np.asarray(scene(96, 64))
    file = io.BytesIO()
    if depth == 8:
        Image.fromarray(levels).save(file, "HEIF", quality=-1, chroma=444, matrix_coefficients=0)
    else:
        wide = (levels.astype(np.uint16) << 8).tobytes()
        encode("RGB;16", (96, 64), wide, file, quality=-1, chroma=444, save_to_12bit=depth == 12)
    processed = process(file.getvalue(), PhotoRecipe(grayscale_format="png"))
    assert (processed.facts.format, processed.facts.media_type) == ("HEIF", "image/heic")
    gray = pixels(processed.outputs["grayscale"]).astype(int)
    assert abs(gray - luma_reference(levels)).max() <= 3

    clear = Image.fromarray(levels).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    alpha = pixels(process(encoded(clear, "HEIF")).outputs["grayscale"])[..., 1].astype(int)
    assert abs(alpha - np.asarray(clear)[..., 3]).mean() < 3
