import numpy as np
import pytest
from PIL import Image

from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    encoded,
    luma_reference,
    opened,
    pixels,
    process,
    scene,
)


def test_alpha_is_kept_beside_the_luma():
    rgba = np.random.default_rng(5).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    output = process(encoded(Image.fromarray(rgba), "PNG")).outputs["grayscale"]
    gray = pixels(output)
    assert (output.mode, output.media_type) == ("LA", "image/png")
    np.testing.assert_array_equal(gray[..., 0], luma_reference(rgba[..., :3]))
    np.testing.assert_array_equal(gray[..., 1], rgba[..., 3])


def test_alpha_is_laid_on_the_background_where_the_format_has_none():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    recipe = PhotoRecipe(grayscale_format="jpeg", background=(0, 0, 255))
    output = process(encoded(image, "PNG"), recipe).outputs["grayscale"]
    assert (output.mode, output.media_type) == ("L", "image/jpeg")
    assert abs(pixels(output).astype(int) - 29).max() <= 1


def test_an_alpha_channel_that_is_opaque_everywhere_is_dropped():
    processed = process(encoded(scene().convert("RGBA"), "PNG"))
    assert processed.facts.mode == "RGBA"
    assert processed.outputs["grayscale"].mode == "L"
    assert processed.outputs["thumbnail"].media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("L", (4, 4), 80), {"transparency": 80}, (80, 0)),
        (Image.new("L", (4, 4), 80), {"transparency": 81}, 80),
        (Image.new("RGB", (4, 4), (9, 8, 7)), {"transparency": (9, 8, 7)}, (8, 0)),
        (Image.new("1", (4, 4), 1), {"transparency": 255}, (255, 0)),
    ],
)
def test_a_transparent_color_of_a_png_becomes_alpha(image, options, expected):
    gray = opened(process(encoded(image, "PNG", **options)).outputs["grayscale"])
    assert gray.getpixel((1, 1)) == expected


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_alpha(format_name):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putpixel((0, 0), 2)
    processed = process(encoded(image, format_name, transparency=2))
    gray = pixels(processed.outputs["grayscale"])
    assert gray[0, 0, 1] == 0
    assert gray[1, 1].tolist() == [150, 255]
    assert pixels(processed.outputs["thumbnail"])[1, 1].tolist() == [0, 255, 0, 255]


def test_palette_alphas_between_opaque_and_clear_are_kept():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    data = encoded(image, "PNG", transparency=bytes([255, 100]))
    assert pixels(process(data).outputs["grayscale"])[0, 0].tolist() == [150, 100]


def test_small_gray_depths_keep_their_transparent_level(corpus):
    gray = pixels(process((corpus / "pngsuite/tbbn0g04.png").read_bytes()).outputs["grayscale"])
    assert gray[0, 0].tolist() == [255, 0]
    assert gray[..., 1].max() == 255


def test_a_transparent_color_of_16_bit_rgb_is_found(corpus):
    processed = process((corpus / "pngsuite/tbgn2c16.png").read_bytes())
    assert processed.outputs["grayscale"].mode == "LA;16"
    gray = pixels(processed.outputs["grayscale"])
    assert gray[0, 0, 3] == 0
    assert gray[16, 16, 3] == 255


@pytest.mark.parametrize("extra", [1, 2])
def test_premultiplied_alpha_of_a_tiff_becomes_straight(extra):
    image = Image.new("RGBA", (4, 4), (100, 50, 20, 128))
    extra_samples = b"\x52\x01\x03\x00\x01\x00\x00\x00"
    data = encoded(image, "TIFF")
    assert data.count(extra_samples + b"\x02") == 1
    data = data.replace(extra_samples + b"\x02", extra_samples + bytes([extra]))
    gray = pixels(process(data).outputs["grayscale"])
    expected = luma_reference(np.array([100, 50, 20]) * (255 / 128 if extra == 1 else 1))
    assert abs(int(gray[0, 0, 0]) - int(expected)) <= 1
    assert gray[0, 0, 1] == 128
