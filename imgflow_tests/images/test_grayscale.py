import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgflow.images.recipe import PhotoRecipe
from imgflow_tests.images.pictures import (
    corners,
    encoded,
    luma_reference,
    opened,
    pixels,
    process,
    rgb_profile,
    scene,
    srgb_profile,
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


def gray_of(data: bytes) -> np.ndarray:
    return pixels(process(data).outputs["grayscale"])


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
    gray = pixels(processed.outputs["grayscale"])
    assert gray[0, 0, 1] == 0
    assert gray[16, 16, 1] == 255
    assert "16 bits per channel read as 8" in processed.facts.notes


MODES = {
    "1": ("TIFF", "L"),
    "L": ("TIFF", "L"),
    "P": ("TIFF", "L"),
    "LA": ("TIFF", "LA"),
    "PA": ("TIFF", "LA"),
    "RGB": ("TIFF", "L"),
    "RGBX": ("TIFF", "L"),
    "RGBA": ("TIFF", "LA"),
    "CMYK": ("TIFF", "L"),
    "YCbCr": ("TIFF", "L"),
    "LAB": ("TIFF", "L"),
    "I": ("TIFF", "L"),
    "F": ("TIFF", "I;16"),
    "I;16": ("TIFF", "I;16"),
    "I;16B": ("TIFF", "I;16"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_gives_the_expected_gray_levels(mode):
    format_name, expected_mode = MODES[mode]
    base = corners("L")
    if mode == "LAB":
        source = corners().convert("LAB")
    elif mode.startswith("I;16"):
        source = base.convert("I").point(lambda v: v * 257).convert("I;16")
        if mode == "I;16B":
            swapped = np.asarray(source).astype(">u2").tobytes()
            source = Image.frombytes("I;16B", source.size, swapped)
    elif mode in ("PA", "LA", "RGBA"):
        source = corners("RGBA")
        source.putalpha(Image.linear_gradient("L").resize(source.size))
        source = source.convert(mode)
    elif mode == "1":
        source = base.point(lambda v: 255 if v > 100 else 0).convert("1")
    elif mode == "F":
        source = base.convert("F").point(lambda v: v * (1 / 255) + 0)
    elif mode in ("I", "L"):
        source = base.convert(mode)
    else:
        source = corners(mode)
    processed = process(encoded(source, format_name))
    output = processed.outputs["grayscale"]
    gray = pixels(output)
    assert output.mode == expected_mode
    levels = gray[..., 0] if gray.ndim == 3 else gray
    found = [int(levels[y, x]) for y, x in ((3, 3), (3, 36), (20, 3), (20, 36))]
    expected = [0, 255, 0, 255] if mode == "1" else [76, 150, 29, 255]
    if expected_mode == "I;16":
        expected = [level * 257 for level in expected]
    tolerance = {"LAB": 12, "YCbCr": 1, "PA": 20, "P": 20}.get(mode, 0)
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, (found, expected)
    assert processed.outputs["thumbnail"].width == 40


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


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_cmyk_without_profile_has_ink_dark_and_paper_white(format_name):
    image = Image.new("CMYK", (40, 24), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (0, 0, 20, 12))
    image.paste((0, 0, 0, 255), (20, 0, 40, 12))
    options = {"quality": 100} if format_name == "JPEG" else {}
    processed = process(encoded(image, format_name, **options))
    gray = pixels(processed.outputs["grayscale"]).astype(int)
    assert abs(gray[3, 3] - 76) <= 4
    assert gray[3, 36] <= 2
    assert gray[20, 20] >= 253
    red = pixels(processed.outputs["thumbnail"])[3, 3].astype(int)
    assert red[0] > 200
    assert red[1] < 60


def test_the_adobe_cmyk_sample_shows_red_letters_on_black(corpus):
    cmyk = process((corpus / "formats/pil_sample_cmyk.jpg").read_bytes())
    rgb = process((corpus / "formats/pil_sample_rgb.jpg").read_bytes())
    a = pixels(cmyk.outputs["thumbnail"]).astype(int)
    b = pixels(rgb.outputs["thumbnail"]).astype(int)
    assert abs(a - b).mean() < 6
    assert a[0, 0, 0] > 200
    assert a[0, 0, 1] < 40
    assert a[99, 99].max() < 10


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


def test_webp_and_avif_give_a_gray_jpeg_and_a_png_when_transparent():
    for format_name in ("WEBP", "AVIF"):
        assert process(encoded(scene(), format_name)).outputs["grayscale"].extension == ".jpg"
        clear = scene().convert("RGBA")
        clear.putalpha(100)
        assert process(encoded(clear, format_name)).outputs["grayscale"].mode == "LA"


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


def cmyk_profile(cyan: tuple[int, int, int]) -> bytes:
    """A CMYK profile of our own (ICC.1:2010, 10.9): Lab of the 16 corners, black ink is black."""
    corners_of_lab = b""
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        lightness, a, b = (0, 0, 0) if k else cyan if c else (100 - 40 * m - 10 * y, 0, 0)
        corners_of_lab += bytes((round(lightness * 2.55), a + 128, b + 128))
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity
    table += ramp * 4 + corners_of_lab + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    note = b"text" + bytes(4) + b"CC0\0"
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags, body = b"", b""
    for name, element in ((b"desc", text), (b"cprt", note), (b"wtpt", white), (b"A2B0", table)):
        tags += struct.pack(">4sII", name, 132 + 4 * 12 + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    size = 132 + len(tags) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


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


def test_a_tiled_tiff_is_put_together_right():
    levels = np.asarray(scene(40, 24).convert("L").resize((40, 24)))
    tiles = [
        np.pad(levels[y : y + 16, x : x + 16], ((0, max(0, y - 8)), (0, max(0, x - 24))))
        for y in (0, 16)
        for x in (0, 16, 32)
    ]
    body = b"".join(tile.tobytes() for tile in tiles)
    assert len(body) == 6 * 256
    values = struct.pack("<6I", *(8 + 256 * n for n in range(6))) + struct.pack("<6I", *[256] * 6)
    at = 8 + len(body)
    entries = [
        (256, 3, 1, 40),
        (257, 3, 1, 24),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 4, 6, at),
        (325, 4, 6, at + 24),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    data = b"II*\0" + struct.pack("<I", at + 48) + body + values + directory
    np.testing.assert_array_equal(gray_of(data), levels)
