import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    corners,
    encoded,
    gray_of,
    luma_reference,
    pixels,
    process,
    rgb_profile,
    scene,
    srgb_profile,
)
from imgflow_tests.images.profiles import cmyk_profile


def test_a_foreign_profile_is_brought_to_srgb_before_the_luma():
    plain = scene(64, 48)
    processed = process(encoded(plain, "PNG", icc_profile=rgb_profile()))
    expected = ImageCms.profileToProfile(
        plain,
        ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile())),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    gray = pixels(processed.outputs["grayscale"])
    np.testing.assert_array_equal(gray, luma_reference(np.asarray(expected)))
    assert abs(gray.astype(int) - luma_reference(np.asarray(plain))).mean() > 4
    thumbnail = pixels(processed.outputs["thumbnail"]).astype(int)
    assert abs(thumbnail - np.asarray(expected)).mean() < 4


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_foreign_profile_counts_in_every_format(format_name):
    with_profile = gray_of(encoded(scene(), format_name, icc_profile=rgb_profile()))
    without = gray_of(encoded(scene(), format_name))
    assert abs(with_profile.astype(int) - without).mean() > 4


def test_a_foreign_profile_in_the_boxes_of_a_jpeg_2000_counts():
    plain = encoded(scene(), "JPEG2000")
    at = plain.index(b"colr") - 4
    size = int.from_bytes(plain[at : at + 4], "big")
    box = b"colr\x02\x00\x00" + rgb_profile()
    header = plain.index(b"jp2h") - 4
    length = int.from_bytes(plain[header : header + 4], "big") - size + len(box) + 4
    data = plain[:header] + length.to_bytes(4, "big") + plain[header + 4 : at]
    data += (len(box) + 4).to_bytes(4, "big") + box + plain[at + size :]
    assert abs(gray_of(data).astype(int) - gray_of(plain)).mean() > 4


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_an_srgb_profile_changes_nothing(format_name):
    recipe = PhotoRecipe(grayscale_format="png")
    marked = encoded(scene(), format_name, icc_profile=srgb_profile())
    plain = encoded(scene(), format_name)
    for name in ("grayscale", "thumbnail"):
        assert (
            process(marked, recipe).outputs[name].data == process(plain, recipe).outputs[name].data
        )


def test_a_profile_is_not_believed_by_its_name():
    liar = rgb_profile()
    assert b"s\0R\0G\0B" in liar
    assert not np.array_equal(
        gray_of(encoded(scene(), "PNG", icc_profile=liar)), gray_of(encoded(scene(), "PNG"))
    )


@pytest.mark.parametrize("profile", [b"", b"rubbish", b"\0" * 200, rgb_profile()[:300]])
def test_a_broken_profile_is_noted_and_ignored(profile):
    processed = process(encoded(scene(), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(
        pixels(processed.outputs["grayscale"]), luma_reference(np.asarray(scene()))
    )
    has_note = any("icc profile" in note for note in processed.facts.notes)
    assert has_note == bool(profile)


def test_a_profile_of_another_color_space_is_noted_and_ignored():
    processed = process(encoded(corners("CMYK"), "TIFF", icc_profile=rgb_profile()))
    assert any("icc profile" in note for note in processed.facts.notes)
    assert processed.outputs["grayscale"].mode == "L"


def test_alpha_stays_while_colors_are_brought_to_srgb():
    image = scene().convert("RGBA")
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    gray = gray_of(encoded(image, "PNG", icc_profile=rgb_profile()))
    np.testing.assert_array_equal(gray[..., 1], np.asarray(alpha))
    assert abs(gray[..., 0].astype(int) - luma_reference(np.asarray(image))).mean() > 4


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_a_cmyk_profile_decides_what_the_inks_look_like(format_name):
    inks = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    inks.paste((0, 0, 0, 0), (0, 0, 16, 32))
    profile = cmyk_profile(cyan=(50, 0, 0))
    options = {"quality": 100} if format_name == "JPEG" else {}
    processed = process(encoded(inks, format_name, icc_profile=profile, **options))
    assert processed.facts.notes == ()
    gray = pixels(processed.outputs["grayscale"]).astype(int)
    # L* 50 is a share of 0.184 of the light (CIE 15), which sRGB stores as 119 (IEC 61966-2-1).
    assert abs(gray[16, 28] - 119) <= 3
    assert gray[16, 4] >= 252
    plain = pixels(process(encoded(inks, format_name, **options)).outputs["grayscale"]).astype(int)
    assert abs(plain[16, 28] - 179) <= 3
