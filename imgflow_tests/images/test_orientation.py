import numpy as np
import pytest
from PIL import Image

from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import corners, encoded, luma_reference, opened, pixels, process

STORED_FROM_UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(orientation: int) -> Image.Image:
    turn = STORED_FROM_UPRIGHT[orientation]
    return corners() if turn is None else corners().transpose(turn)


def tags(orientation: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_outputs_are_upright_whatever_the_orientation(orientation, format_name):
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "HEIF": {"quality": -1, "chroma": 444},
    }
    data = encoded(
        stored(orientation), format_name, exif=tags(orientation), **options.get(format_name, {})
    )
    processed = process(data, PhotoRecipe(grayscale_format="png", thumbnail_format="png"))
    facts = processed.facts
    assert (facts.width, facts.height, facts.orientation) == (40, 24, orientation)
    gray = pixels(processed.outputs["grayscale"]).astype(int)
    assert gray.shape == (24, 40)
    assert abs(gray - luma_reference(np.asarray(corners()))).max() <= 8
    thumbnail = opened(processed.outputs["thumbnail"])
    assert 0x0112 not in thumbnail.getexif()
    assert abs(np.asarray(thumbnail).astype(int) - np.asarray(corners())).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_decode_is_upright_too(orientation):
    upright = corners().resize((640, 384), Image.Resampling.NEAREST)
    turn = STORED_FROM_UPRIGHT[orientation]
    image = upright if turn is None else upright.transpose(turn)
    data = encoded(image, "JPEG", quality=95, exif=tags(orientation))
    thumbnail = pixels(process(data, PhotoRecipe(thumbnail_size=(40, 40))).outputs["thumbnail"])
    assert thumbnail.shape == (24, 40, 3)
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for (y, x), color in zip(((4, 8), (4, 32), (20, 8), (20, 32)), expected, strict=True):
        assert abs(thumbnail[y, x].astype(int) - color).max() <= 12


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_out_of_range_counts_as_none(orientation):
    facts = process(encoded(corners(), "JPEG", exif=tags(orientation))).facts
    assert (facts.width, facts.height, facts.orientation) == (40, 24, 1)


def test_an_orientation_that_is_no_number_counts_as_none():
    block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0"
    assert process(encoded(corners(), "JPEG", exif=block)).facts.orientation == 1


def test_a_broken_exif_block_is_noted_and_ignored():
    facts = process(encoded(corners(), "JPEG", exif=b"Exif\0\0rubbish")).facts
    assert (facts.width, facts.orientation) == (40, 1)
    assert "exif broken, ignored" in facts.notes


def test_the_orientation_photographs_all_look_alike(corpus):
    for shape in ("landscape", "portrait"):
        first = process((corpus / f"exif/{shape}_1.jpg").read_bytes())
        reference = pixels(first.outputs["thumbnail"]).astype(int)
        for orientation in range(2, 9):
            other = process((corpus / f"exif/{shape}_{orientation}.jpg").read_bytes())
            assert other.facts.orientation == orientation
            assert (other.facts.width, other.facts.height) == (
                first.facts.width,
                first.facts.height,
            )
            difference = abs(pixels(other.outputs["thumbnail"]).astype(int) - reference)
            # The number in the middle of each picture is its own.
            assert difference.mean() < 4, (shape, orientation)
