"""16 bits a channel in colour, or in gray with alpha, stay 16 bits in the grayscale."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from imgflow.errors import Rejected
from imgflow.images.encoding import Encoded
from imgflow.images.formats.headers import bits_per_channel
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, pixels, process, rgb_profile, srgb_profile
from imgflow_tests.images.profiles import gray_profile
from imgflow_tests.images.wide_pictures import gray_png16_samples, iccp, png16, tiff16

NOISE = np.random.default_rng(16).integers(0, 65536, (37, 53, 4)).astype(np.uint16)


def luma(colours: np.ndarray) -> np.ndarray:
    """BT.601 in 16-bit fixed point of 16-bit samples, in whole numbers of any size."""
    r, g, b = (colours[..., channel].astype(object) for channel in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint16)


def gray_of(data: bytes) -> np.ndarray:
    return gray_png16_samples(process(data).outputs["grayscale"].data)


FILES = {
    "PNG": png16,
    "TIFF, little endian": tiff16,
    "TIFF, big endian": lambda samples: tiff16(samples, order=">"),
    "TIFF, deflate": lambda samples: tiff16(samples, deflate=True),
    "TIFF, big endian, deflate": lambda samples: tiff16(samples, order=">", deflate=True),
}


@pytest.mark.parametrize("name", FILES)
def test_luma_of_16_bit_colour_is_bit_exact(name: str) -> None:
    processed = process(FILES[name](NOISE[..., :3]))
    output = processed.outputs["grayscale"]
    assert (output.mode, output.media_type) == ("I;16", "image/png")
    np.testing.assert_array_equal(gray_png16_samples(output.data)[..., 0], luma(NOISE[..., :3]))
    assert processed.facts.notes == ()
    thumbnail = pixels(processed.outputs["thumbnail"])
    assert (thumbnail.dtype, thumbnail.shape) == (np.uint8, (37, 53, 3))


@pytest.mark.parametrize("name", FILES)
def test_alpha_of_16_bit_colour_is_kept_in_16_bits(name: str) -> None:
    output = process(FILES[name](NOISE)).outputs["grayscale"]
    samples = gray_png16_samples(output.data)
    assert output.mode == "LA;16"
    np.testing.assert_array_equal(samples[..., 0], luma(NOISE))
    np.testing.assert_array_equal(samples[..., 1], NOISE[..., 3])
    assert pixels(output)[..., 3].tolist() == (NOISE[..., 3] >> 8).tolist()


def test_16_bit_gray_with_alpha_keeps_every_bit() -> None:
    np.testing.assert_array_equal(gray_of(png16(NOISE[..., 2:])), NOISE[..., 2:])


def test_an_alpha_that_is_opaque_everywhere_is_dropped() -> None:
    opaque = NOISE.copy()
    opaque[..., 3] = 65535
    assert process(png16(opaque)).outputs["grayscale"].mode == "I;16"
    assert process(png16(opaque[..., 2:])).outputs["grayscale"].mode == "I;16"


def test_a_clear_colour_of_16_bits_is_found_by_all_of_its_bits() -> None:
    samples = NOISE[..., :3].copy()
    samples[0, 0] = (0x1234, 0x5678, 0x9ABC)
    samples[0, 1] = (0x1234, 0x5678, 0x9ABD)
    data = png16(samples, tRNS=struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert gray_of(data)[0, :2, 1].tolist() == [0, 65535]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_both_channels_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png16(NOISE, eXIf=exif.tobytes().removeprefix(b"Exif\0\0"))
    turned = np.rot90(NOISE, {1: 0, 3: 2, 6: -1}[orientation])
    samples = gray_of(data)
    np.testing.assert_array_equal(samples[..., 0], luma(turned))
    np.testing.assert_array_equal(samples[..., 1], turned[..., 3])


def test_alpha_of_16_bits_lies_on_the_background_in_a_jpeg() -> None:
    samples = np.zeros((8, 8, 2), np.uint16)
    samples[:4, :, 1] = 65535
    output: Encoded = process(png16(samples), PhotoRecipe(grayscale_format="jpeg")).outputs[
        "grayscale"
    ]
    gray = pixels(output)
    assert output.media_type == "image/jpeg"
    assert gray[:3].max() <= 2
    assert gray[5:].min() >= 253


def test_a_profile_is_applied_to_16_bit_colour_in_16_bits() -> None:
    # Adobe's primaries with a gamma of 1.8, brought to sRGB with the formulas of the standards.
    primaries = np.array(
        [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
    )
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    light = (NOISE[..., :3] / 65535) ** 1.8 @ (np.linalg.inv(srgb) @ primaries).T
    light = np.clip(light, 0, 1)
    shares = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    expected = luma(np.rint(shares * 65535).astype(np.uint16)).astype(int)
    found = gray_of(png16(NOISE[..., :3], iCCP=iccp(rgb_profile())))[..., 0].astype(int)
    # Colours of darkest blue are steep: 1 of 8-bit levels is 257 here.
    assert abs(found - expected).max() <= 40
    assert abs(found - expected).mean() <= 4
    # What Little CMS makes of the high bytes is the same within its 8 bits.
    eight = process(
        encoded(
            Image.fromarray((NOISE[..., :3] >> 8).astype(np.uint8)),
            "PNG",
            icc_profile=rgb_profile(),
        )
    )
    assert abs(found / 257 - pixels(eight.outputs["grayscale"])).mean() < 1.5


def test_an_srgb_profile_changes_nothing_in_16_bits() -> None:
    plain = process(png16(NOISE)).outputs["grayscale"].data
    assert process(png16(NOISE, iCCP=iccp(srgb_profile()))).outputs["grayscale"].data == plain


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_a_gray_profile_is_applied_to_16_bit_gray(format_name: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    processed = process(encoded(Image.fromarray(ramp), format_name, icc_profile=gray_profile(1.0)))
    light = ramp / 65535
    shares = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    found = gray_png16_samples(processed.outputs["grayscale"].data)[..., 0].astype(int)
    assert abs(found - np.rint(shares * 65535)).max() <= 1
    assert processed.facts.notes == ()
    thumbnail = pixels(processed.outputs["thumbnail"]).astype(int)
    assert abs(thumbnail - found / 257).mean() < 4


def test_a_profile_that_is_no_curve_is_noted_on_16_bit_gray() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    processed = process(encoded(Image.fromarray(ramp), "PNG", icc_profile=rgb_profile()))
    np.testing.assert_array_equal(
        gray_png16_samples(processed.outputs["grayscale"].data)[..., 0], ramp
    )
    assert any("icc profile" in note for note in processed.facts.notes)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_wide_picture_that_is_cut_short_is_rejected(share: float) -> None:
    for data in (png16(NOISE), tiff16(NOISE), png16(NOISE[..., 2:])):
        with pytest.raises(Rejected) as caught:
            process(data[: int(len(data) * share)])
        assert caught.value.code in ("truncated", "corrupt")


def test_inks_of_16_bits_are_read_as_8_and_noted() -> None:
    data = bytearray(tiff16(np.full((8, 8, 4), 30000, np.uint16)))
    at = data.index(struct.pack("<HHIHH", 262, 3, 1, 2, 0))
    struct.pack_into("<HHIHH", data, at, 262, 3, 1, 5, 0)
    data[data.index(struct.pack("<HHI", 338, 3, 1))] = 0x51  # an unknown tag: no extra samples
    processed = process(bytes(data))
    assert processed.facts.mode == "CMYK"
    assert "16 bits per channel read as 8" in processed.facts.notes


@pytest.mark.parametrize("depth", [8, 10])
def test_more_bits_than_a_decoder_gives_are_noted(depth: int) -> None:
    from pillow_heif import encode

    file = io.BytesIO()
    levels = (NOISE[:32, :48, :3] >> 1).tobytes()
    if depth == 8:
        file = io.BytesIO(encoded(Image.new("RGB", (48, 32)), "HEIF"))
    else:
        encode("RGB;16", (48, 32), levels, file, quality=-1)
    notes = process(file.getvalue()).facts.notes
    assert notes == (() if depth == 8 else (f"{depth} bits per channel read as 8",))


@pytest.mark.parametrize(
    ("format_name", "find", "step", "told"),
    [("JPEG2000", b"\xff\x4f\xff\x51", 42, 15), ("AVIF", b"pixi", 9, 10)],
)
def test_the_depth_is_read_from_the_header(
    format_name: str, find: bytes, step: int, told: int
) -> None:
    data = bytearray(encoded(Image.new("RGB", (48, 32)), format_name))
    picture = Image.open(io.BytesIO(data))
    assert bits_per_channel(picture, bytes(data)) == 8
    at = data.index(find)
    if format_name == "JPEG2000":
        assert data[at + step] == 7
    data[at + step] = told
    assert bits_per_channel(picture, bytes(data)) == (16 if told == 15 else told)
    assert bits_per_channel(picture, bytes(data[: at + step])) == 8
