import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from imgflow.images.photo import fit
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, opened, pixels, process, scene


def thumbnail_of(data: bytes, **settings):
    return process(data, PhotoRecipe(**settings)).outputs["thumbnail"]


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((1024, 768), (256, 256), (256, 192)),
        ((768, 1024), (256, 256), (192, 256)),
        ((100, 80), (256, 256), (100, 80)),
        ((256, 256), (256, 256), (256, 256)),
        ((257, 256), (256, 256), (256, 255)),
        ((10_000, 3), (256, 256), (256, 1)),
        ((3, 10_000), (256, 256), (1, 256)),
        ((1, 1), (1, 1), (1, 1)),
        ((1000, 1000), (100, 50), (50, 50)),
        ((300, 10), (256, 256), (256, 9)),
    ],
)
def test_sizes_fit_the_box_in_proportion(size, box, expected):
    assert fit(size, box) == expected


def test_the_proportions_are_kept_within_half_a_pixel():
    rng = np.random.default_rng(0)
    for width, height, across, down in rng.integers(1, 3000, (2000, 4)).tolist():
        w, h = fit((width, height), (across, down))
        assert 1 <= w <= min(across, width)
        assert 1 <= h <= min(down, height)
        scale = min(across / width, down / height, 1)
        assert abs(w - width * scale) <= 0.5 or w == 1
        assert abs(h - height * scale) <= 0.5 or h == 1


def test_a_small_picture_is_not_enlarged():
    output = thumbnail_of(encoded(scene(31, 17), "PNG"))
    assert (output.width, output.height) == (31, 17)
    assert opened(output).size == (31, 17)


@pytest.mark.parametrize("size", [(5000, 2), (2, 5000), (1, 1)])
def test_extreme_shapes_keep_a_pixel_on_each_side(size):
    for format_name in ("JPEG", "PNG"):
        output = thumbnail_of(encoded(Image.new("RGB", size, (10, 20, 30)), format_name))
        assert min(output.width, output.height) >= 1
        assert max(output.width, output.height) <= 256


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_the_format_asked_for_is_the_format_made(name):
    output = thumbnail_of(encoded(scene(), "JPEG"), thumbnail_format=name)
    assert output.media_type == f"image/{name}"
    assert opened(output).format == name.upper()
    assert opened(output).mode == output.mode == "RGB"


@pytest.mark.parametrize("name", ["auto", "png", "webp"])
def test_alpha_is_kept_where_the_thumbnail_format_can(name):
    image = Image.new("RGBA", (600, 400), (200, 10, 10, 0))
    image.paste((200, 10, 10, 255), (300, 0, 600, 400))
    output = thumbnail_of(encoded(image, "PNG"), thumbnail_format=name)
    thumbnail = pixels(output)
    assert output.mode == "RGBA"
    assert (thumbnail[:, :120, 3] == 0).all()
    assert (thumbnail[:, 140:, 3] == 255).all()
    assert abs(thumbnail[:, 140:, :3].astype(int) - (200, 10, 10)).max() <= 4


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
def test_a_transparent_picture_lies_on_the_background_in_a_jpeg(background):
    image = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (200, 0, 300, 200))
    output = thumbnail_of(encoded(image, "PNG"), thumbnail_format="jpeg", background=background)
    thumbnail = pixels(output).astype(int)
    assert output.mode == "RGB"
    assert abs(thumbnail[:, :140] - background).max() <= 4
    assert thumbnail[100, 220, 0] > 240


def test_colors_hidden_under_clear_pixels_do_not_bleed():
    image = Image.new("RGBA", (512, 512), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 255, 512))
    thumbnail = pixels(thumbnail_of(encoded(image, "PNG")))
    visible = thumbnail[thumbnail[..., 3] > 8]
    assert visible[:, 1].max() <= 8


def test_the_background_of_a_gray_picture_is_its_luma():
    image = Image.new("LA", (20, 20), (0, 0))
    output = thumbnail_of(encoded(image, "PNG"), thumbnail_format="jpeg", background=(255, 0, 0))
    assert output.mode == "L"
    assert abs(pixels(output).astype(int) - 76).max() <= 1


def test_a_one_bit_drawing_is_smoothed_not_thinned_out():
    lines = np.zeros((512, 512), dtype=bool)
    lines[::2] = True
    thumbnail = pixels(thumbnail_of(encoded(Image.fromarray(lines), "PNG"))).astype(int)
    assert abs(thumbnail[8:-8, 8:-8] - 128).max() < 16


def test_thumbnails_of_photographs_match_a_full_decode(corpus):
    lowest = {}
    for path in sorted((corpus / "photos").iterdir()):
        data = path.read_bytes()
        # As PNG, so that the scaling is measured and not the loss of the JPEG encoder.
        output = thumbnail_of(data, thumbnail_format="png")
        image = Image.open(io.BytesIO(data)).convert("RGB")
        reference = image.resize((output.width, output.height), Image.Resampling.LANCZOS)
        lowest[path.name] = structural_similarity(
            np.asarray(reference), pixels(output), channel_axis=-1
        )
    assert len(lowest) >= 18
    assert min(lowest.values()) >= 0.98, lowest


def test_thumbnails_as_they_are_served_match_a_full_decode(corpus):
    wheel = Path(str(find_spec("skimage").origin)).parent / "data"
    photos = [*sorted((corpus / "photos").iterdir()), *wheel.glob("[acr]*[tef].png")]
    lowest = {}
    for path in photos:
        data = path.read_bytes()
        output = thumbnail_of(data)
        assert output.media_type == "image/jpeg"
        image = Image.open(io.BytesIO(data)).convert("RGB")
        reference = image.resize((output.width, output.height), Image.Resampling.LANCZOS)
        lowest[path.name] = structural_similarity(
            np.asarray(reference.convert("L")), np.asarray(opened(output).convert("L"))
        )
    assert len(lowest) >= 20
    assert min(lowest.values()) >= 0.98, lowest


def test_a_thumbnail_keeps_its_colours_at_full_size_unless_it_is_to_be_small():
    colours = Image.new("RGB", (64, 64), (255, 0, 0))
    for x in range(0, 64, 2):
        colours.paste((0, 0, 255), (x, 0, x + 1, 64))
    data = encoded(colours, "PNG")
    fine = pixels(thumbnail_of(data)).astype(int)
    assert abs(fine - np.asarray(colours)).max() <= 12
    coarse = pixels(thumbnail_of(data, thumbnail_quality=85)).astype(int)
    assert abs(coarse - np.asarray(colours)).max() > 60


def test_a_thumbnail_is_the_same_whatever_else_is_made(corpus):
    from imgflow.images.formats.decoding import Limits
    from imgflow.images.outputs import process_photo

    recipe = PhotoRecipe(watermark_text="x")
    for name in (
        "photos/clic-1-2048x1216.jpg",
        "photos/clic-2-2048x1358.jpg",
        "formats/flower.jpg",
    ):
        data = (corpus / name).read_bytes()
        together = process_photo(data, recipe, Limits(), ("proof", "grayscale", "thumbnail"))
        assert list(together.outputs) == ["proof", "grayscale", "thumbnail"]
        for output, made in together.outputs.items():
            alone = process_photo(data, recipe, Limits(), (output,))
            assert alone.outputs[output] == made
