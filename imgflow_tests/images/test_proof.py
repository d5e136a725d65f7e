import numpy as np
import pytest
from PIL import Image

from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, opened, scene


def proof_of(image: Image.Image, text: str, **settings) -> Image.Image:
    recipe = PhotoRecipe(watermark_text=text, **settings)
    return opened(
        process_photo(encoded(image, "PNG"), recipe, Limits(), ("proof",)).outputs["proof"]
    )


@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_watermark_is_seen_all_over_dark_gray_and_white(level):
    proof = proof_of(Image.new("RGB", (800, 600), (level,) * 3), "PROOF")
    assert proof.format == "JPEG"
    assert proof.size == (512, 384)
    difference = abs(np.asarray(proof.convert("L")).astype(int) - level)
    for rows in np.array_split(difference, 3):
        for part in np.array_split(rows, 3, axis=1):
            assert part.max() > 60
            assert 0.02 < (part > 40).mean() < 0.5


def test_the_picture_is_still_recognised_under_the_watermark():
    image = scene(512, 384)
    proof = np.asarray(proof_of(image, "PROOF")).astype(float)
    plain = np.asarray(image).astype(float)
    assert np.corrcoef(proof.ravel(), plain.ravel())[0, 1] > 0.7
    assert abs(proof - plain).mean() > 4


@pytest.mark.parametrize(
    "text",
    [
        "© Zoë Müller",
        "日本語",
        "עברית",
        "مرحبا",
        "🙂",
        "a\nb\tc",
        "x" * 200,
        "\u200b",
        "\x00",
        "é" * 50,
    ],
)
def test_any_text_gives_a_proof(text):
    proof = proof_of(Image.new("RGB", (300, 200), (90, 90, 90)), text)
    assert proof.size == (300, 200)


def test_texts_differ_in_the_picture():
    gray = Image.new("RGB", (300, 200), (90, 90, 90))
    assert proof_of(gray, "ONE").tobytes() != proof_of(gray, "TWO").tobytes()


def test_a_transparent_picture_has_a_transparent_proof():
    image = Image.new("RGBA", (100, 80), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (50, 0, 100, 80))
    proof = proof_of(image, "PROOF")
    assert (proof.format, proof.mode) == ("PNG", "RGBA")
    assert np.asarray(proof)[..., 3].tolist() == np.asarray(image)[..., 3].tolist()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2000, 1)])
def test_tiny_pictures_have_a_proof(size):
    assert max(proof_of(Image.new("RGB", size), "PROOF").size) <= 512


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "P", "1", "RGBA"])
def test_pictures_of_every_kind_have_a_proof(mode):
    source = Image.new("L", (60, 40), 120)
    source = source.convert("I").convert(mode) if mode == "I;16" else source.convert(mode)
    assert proof_of(source, "PROOF").mode == "RGB"


def test_the_proof_size_is_heeded():
    assert proof_of(scene(600, 300), "PROOF", proof_size=(100, 100)).size == (100, 50)


def test_the_masks_are_the_same_in_a_fresh_cache():
    from imgflow.images import watermark

    gray = Image.new("RGB", (120, 90), (50, 60, 70))
    first = watermark.watermarked(gray, "abc").tobytes()
    watermark._masks.cache_clear()
    assert watermark.watermarked(gray, "abc").tobytes() == first
    assert first != gray.tobytes()
