import io

import numpy as np
import pytest
from PIL import Image

from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    encoded,
    gray_of,
    luma_reference,
    pixels,
    process,
    scene,
)

VECTORS = [
    ((255, 0, 0), 76),
    ((0, 255, 0), 150),
    ((0, 0, 255), 29),
    ((255, 255, 255), 255),
    ((0, 0, 0), 0),
    ((1, 1, 1), 1),
    ((128, 64, 32), 79),
    ((17, 203, 99), 136),
    ((255, 255, 0), 226),
    ((0, 255, 255), 179),
]


@pytest.mark.parametrize(("color", "expected"), VECTORS)
def test_luma_of_a_color_is_bit_exact(color, expected):
    gray = gray_of(encoded(Image.new("RGB", (3, 2), color), "PNG"))
    assert gray.dtype == np.uint8
    assert gray.shape == (2, 3)
    assert (gray == expected).all()


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF"])
def test_luma_of_a_lossless_picture_is_bit_exact_everywhere(format_name):
    noise = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    output = process(encoded(Image.fromarray(noise), format_name)).outputs["grayscale"]
    assert (output.media_type, output.extension, output.mode) == ("image/png", ".png", "L")
    assert (output.width, output.height) == (70, 50)
    np.testing.assert_array_equal(pixels(output), luma_reference(noise))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_luma_of_a_jpeg_is_exact_also_where_its_colors_do_not_fit_into_rgb(
    subsampling, progressive
):
    noise = np.random.default_rng(3).integers(0, 256, (19, 25, 3), dtype=np.uint8)
    garish = Image.fromarray(noise).resize((200, 152), Image.Resampling.NEAREST)
    data = encoded(garish, "JPEG", quality=60, subsampling=subsampling, progressive=progressive)
    recipe = PhotoRecipe(grayscale_format="png")
    gray = pixels(process(data, recipe).outputs["grayscale"])
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    assert ((rgb == 0) | (rgb == 255)).any(axis=-1).mean() > 0.01
    np.testing.assert_array_equal(gray, luma_reference(rgb))


def test_luma_of_photographs_is_the_one_of_their_decoded_colors(corpus):
    recipe = PhotoRecipe(grayscale_format="png")
    for path in sorted((corpus / "photos").glob("*.jpg"))[:4]:
        gray = pixels(process(path.read_bytes(), recipe).outputs["grayscale"])
        rgb = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(gray, luma_reference(rgb), err_msg=path.name)


def test_a_jpeg_gives_a_gray_jpeg_near_its_luma():
    output = process(encoded(scene(160, 120), "JPEG", quality=95)).outputs["grayscale"]
    assert (output.media_type, output.extension, output.mode) == ("image/jpeg", ".jpg", "L")
    gray = pixels(output).astype(int)
    assert abs(gray - luma_reference(np.asarray(scene(160, 120)))).mean() < 2


@pytest.mark.parametrize("keep_rgb", [False, True])
def test_a_jpeg_coded_as_rgb_has_the_luma_of_its_colors(keep_rgb):
    data = encoded(scene(), "JPEG", quality=100, subsampling=0, keep_rgb=keep_rgb)
    recipe = PhotoRecipe(grayscale_format="png")
    gray = pixels(process(data, recipe).outputs["grayscale"]).astype(int)
    assert abs(gray - luma_reference(np.asarray(scene()))).max() <= 2


def test_webp_and_avif_give_a_gray_jpeg_and_a_png_when_transparent():
    for format_name in ("WEBP", "AVIF"):
        assert process(encoded(scene(), format_name)).outputs["grayscale"].extension == ".jpg"
        clear = scene().convert("RGBA")
        clear.putalpha(100)
        assert process(encoded(clear, format_name)).outputs["grayscale"].mode == "LA"
