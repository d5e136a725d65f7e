"""Pictures as text: small whatever they show, and of the colours of the large one."""

from __future__ import annotations

import base64
import io
import os

import pytest
from PIL import Image

from imgflow.images.encoding import MOST_CHARACTERS, inline_picture
from imgflow.images.formats.decoding import Limits
from imgflow.images.modes import ALPHA
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, scene
from imgflow_tests.images.test_private_metadata import SECRET, picture


def shown(image: Image.Image) -> Image.Image:
    text = inline_picture(image)
    assert len(text) <= MOST_CHARACTERS
    start, _, body = text.partition(",")
    assert start == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_noise_is_bounded_too(mode: str) -> None:
    for size in ((64, 64), (63, 64), (256, 256), (1000, 999)):
        channels = len(mode)
        noise = os.urandom(size[0] * size[1] * channels)
        assert max(shown(Image.frombytes(mode, size, noise)).size) <= 56


def test_the_worst_noise_is_bounded_too() -> None:
    """Black and white at random: the most that a JPEG can have in its blocks."""
    levels = bytes(255 * (byte & 1) for byte in os.urandom(64 * 64 * 3))
    assert shown(Image.frombytes("RGB", (64, 64), levels)).format == "JPEG"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 768), (56, 42)), ((768, 1024), (42, 56)), ((31, 17), (31, 17)), ((1, 1), (1, 1))],
)
def test_it_has_the_proportions_and_is_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shown(scene(*size)).size == expected


@pytest.mark.parametrize("size", [(5000, 2), (2, 5000)])
def test_extreme_shapes_keep_a_pixel_on_each_side(size: tuple[int, int]) -> None:
    assert sorted(shown(Image.new("L", size, 90)).size) == [1, 56]


def test_colours_and_places_are_those_of_the_picture() -> None:
    image = Image.new("RGB", (800, 600), (200, 30, 30))
    image.paste((20, 40, 210), (400, 0, 800, 600))
    small = shown(image).convert("RGB")
    for x, colour in ((8, (200, 30, 30)), (48, (20, 40, 210))):
        found = small.getpixel((x, 21))
        assert isinstance(found, tuple)
        assert all(abs(a - b) <= 12 for a, b in zip(found, colour, strict=True))


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (150, 0, 300, 200))
    gray = Image.new("I;16", (300, 200), 0)
    gray.info[ALPHA] = Image.new("I;16", (300, 200), 0)
    gray.info[ALPHA].paste(65535, (150, 0, 300, 200))
    for image in (clear, gray):
        before = image.tobytes()
        small = shown(image).convert("L")
        assert small.getpixel((8, 20)) > 245  # type: ignore[operator]
        assert small.getpixel((48, 20)) < 10  # type: ignore[operator]
        assert image.tobytes() == before


def test_sixteen_bits_keep_their_levels() -> None:
    assert abs(shown(Image.new("I;16", (300, 200), 128 * 257)).getpixel((9, 9)) - 128) <= 2  # type: ignore[operator]


def test_every_output_of_a_photograph_has_one_without_anything_private() -> None:
    recipe = PhotoRecipe(watermark_text="PROOF")
    names = ("grayscale", "thumbnail", "proof")
    for name, output in process_photo(picture("JPEG"), recipe, Limits(), names).outputs.items():
        body = base64.b64decode(output.picture.partition(",")[2])
        assert SECRET.encode() not in body, name
        assert Image.open(io.BytesIO(body)).mode == ("L" if name == "grayscale" else "RGB")


def test_it_is_the_same_in_every_run_of_the_same_recipe() -> None:
    data = encoded(scene(), "JPEG")
    first, second = (
        process_photo(data, PhotoRecipe(), Limits(), ["thumbnail"]).outputs["thumbnail"]
        for _ in range(2)
    )
    assert first == second
