import concurrent.futures
import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    encoded,
    opened,
    pixels,
    process,
    rgb_profile,
    scene,
)

ALL = ("grayscale", "thumbnail", "proof")
RECIPE = PhotoRecipe(watermark_text="© Zoë")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIF")


def digests(data: bytes) -> dict[str, str]:
    made = process_photo(data, RECIPE, Limits(), ALL).outputs
    return {name: hashlib.sha256(output.data).hexdigest() for name, output in made.items()}


def crowded(format_name: str) -> bytes:
    """A picture with everything in its metadata that must not get out, and a credit."""
    exif = Image.Exif()
    exif[0x010F] = "MakerOfCameras"
    exif[0x013B] = "Zoë Artist"
    exif[0x8298] = "(c) 2026 Rights"
    exif[0x0112] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    xmp = b"<x:xmpmeta>SECRETXMP</x:xmpmeta>"
    options = {"xmp": xmp} if format_name in ("JPEG", "WEBP") else {}
    options |= {"comment": b"SECRETCOMMENT"} if format_name in ("JPEG", "GIF") else {}
    options |= {"exif": exif.tobytes()} if format_name != "GIF" else {}
    return encoded(scene(), format_name, icc_profile=rgb_profile(), **options)


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_of_the_metadata_gets_into_the_outputs_but_the_credit(format_name):
    made = process_photo(crowded(format_name), RECIPE, Limits(), ALL).outputs
    assert set(made) == set(ALL)
    for output in made.values():
        for secret in (b"MakerOfCameras", b"SECRET", b"ICC_PROFILE", b"iCCP", b"acsp"):
            assert secret not in output.data
        exif = opened(output).getexif()
        assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
        if format_name == "GIF":
            assert not exif
        else:
            assert set(exif) == {0x013B, 0x8298}
            assert exif[0x8298] == "(c) 2026 Rights"


@pytest.mark.parametrize("thumbnail_format", ["jpeg", "png", "webp"])
def test_a_credit_with_letters_outside_ascii_keeps_its_bytes(thumbnail_format):
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0"
    artist, rights = "Zoë 写真".encode() + b"\0", b"\xa9 me\0"
    at = 8 + 2 + 24 + 4
    block += b"\x3b\x01\x02\0" + len(artist).to_bytes(4, "little") + at.to_bytes(4, "little")
    at += len(artist)
    block += b"\x98\x82\x02\0" + len(rights).to_bytes(4, "little") + at.to_bytes(4, "little")
    data = encoded(scene(), "JPEG", exif=block + bytes(4) + artist + rights)
    recipe = PhotoRecipe(thumbnail_format=thumbnail_format)
    exif = opened(process(data, recipe).outputs["thumbnail"]).getexif()
    assert exif[0x013B].encode("latin-1").decode() == "Zoë 写真"
    assert exif[0x8298] == "© me"


@pytest.mark.parametrize("length", [1, 3, 4, 5, 50_000])
def test_credits_of_any_length_are_read_back(length):
    exif = Image.Exif()
    exif[0x8298] = "x" * length
    data = encoded(scene(), "JPEG", exif=exif.tobytes())
    found = opened(process(data).outputs["grayscale"]).getexif()
    assert found[0x8298] == "x" * min(length, 4096)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_process_makes_the_same_bytes(method):
    pictures = [crowded(name) for name in FORMATS]
    here = [digests(data) for data in pictures]
    assert [digests(data) for data in pictures] == here
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(digests, pictures)) == here


def test_the_facts_of_each_output_match_its_bytes():
    for format_name in FORMATS:
        for output in process_photo(crowded(format_name), RECIPE, Limits(), ALL).outputs.values():
            image = opened(output)
            assert (output.width, output.height, output.mode) == (*image.size, image.mode)
            assert output.media_type == Image.MIME[str(image.format)]
            assert output.extension == {"JPEG": ".jpg", "PNG": ".png"}[str(image.format)]


def test_quality_changes_the_size_of_a_jpeg():
    data = encoded(scene(300, 200), "JPEG", quality=95)
    low, high = (
        process(data, PhotoRecipe(jpeg_quality=quality)).outputs["grayscale"]
        for quality in (30, 95)
    )
    assert len(low.data) < len(high.data) / 2


def test_an_output_of_unknown_name_is_a_mistake_of_the_caller():
    with pytest.raises(KeyError):
        process_photo(encoded(scene(), "PNG"), RECIPE, Limits(), ("sepia",))


def test_only_the_asked_outputs_are_made():
    assert not process_photo(encoded(scene(), "PNG"), RECIPE, Limits(), ()).outputs
    assert list(process_photo(encoded(scene(), "JPEG"), RECIPE, Limits(), ("proof",)).outputs) == [
        "proof"
    ]


def test_a_result_survives_the_way_back_from_a_worker():
    import pickle

    made = process_photo(crowded("JPEG"), RECIPE, Limits(), ALL)
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - our own bytes


def test_a_photograph_is_decoded_once(monkeypatch, corpus: Path):
    decodes: list[tuple[str, tuple[int, int]]] = []
    real = Image._getdecoder

    def counting(mode, name, args, extra=()):
        if name == "jpeg":
            decodes.append((mode, extra))
        return real(mode, name, args, extra)

    monkeypatch.setattr(Image, "_getdecoder", counting)
    base = Image.open(corpus / "photos/clic-1-2048x1216.jpg").convert("RGB")
    for options in ({}, {"progressive": True}):
        decodes.clear()
        process_photo(encoded(base, "JPEG", **options), RECIPE, Limits(), ALL)
        assert decodes == [("RGB", ())]


def test_a_picture_smaller_than_the_box_keeps_its_pixels():
    image = scene(64, 64)
    output = process(encoded(image, "BMP"), PhotoRecipe(thumbnail_format="png")).outputs[
        "thumbnail"
    ]
    np.testing.assert_array_equal(pixels(output), np.asarray(image))


def test_photographs_and_pages_are_compressed_each_in_its_way(corpus: Path):
    page = Image.new("L", (800, 600), 255)
    draw = ImageDraw.Draw(page)
    for y in range(0, 600, 20):
        draw.text((4, y), "The quick brown fox jumps over the lazy dog. " * 3, fill=0)
    photo = Image.open(corpus / "photos/clic-1-2048x1216.jpg").convert("L")
    for image in (page, photo):
        output = process(encoded(image, "PNG")).outputs["grayscale"]
        np.testing.assert_array_equal(pixels(output), np.asarray(image))
        assert len(output.data) <= len(encoded(image, "PNG", compress_level=1))
    assert len(output.data) < 0.92 * len(encoded(photo, "PNG", compress_level=1))
