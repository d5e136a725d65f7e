import contextlib
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from imgflow.errors import Rejected, SettingsError
from imgflow.images.formats.decoding import Limits, open_photo
from imgflow.images.formats.pillow import MEDIA_TYPES, OPTIONAL_DECODERS
from imgflow.images.formats.sniffing import suffix_mismatch
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import LIMITS, corners, encoded, process, scene

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "HEIF")


def rejection(data: bytes, limits: Limits = LIMITS) -> Rejected:
    with pytest.raises(Rejected) as caught:
        process(data, limits=limits)
    reason = caught.value.reason
    assert reason.endswith(".")
    assert reason[0].isupper()
    assert "object at 0x" not in reason
    return caught.value


@pytest.mark.parametrize("format_name", FORMATS)
def test_facts_tell_the_format_by_content(format_name):
    facts = process(encoded(scene(90, 50), format_name)).facts
    assert facts.format == format_name
    assert facts.media_type == MEDIA_TYPES[format_name]
    assert (facts.width, facts.height, facts.frames, facts.orientation) == (90, 50, 1, 1)
    assert facts.mode == ("P" if format_name == "GIF" else "RGB")
    assert facts.notes == ()


def test_the_first_frame_of_an_animation_is_used_and_frames_are_counted():
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "lime", "blue")]
    for format_name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        options = {"lossless": True} if format_name == "WEBP" else {}
        data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
        processed = process(data, PhotoRecipe(thumbnail_format="png", grayscale_format="png"))
        assert processed.facts.frames == 3, format_name
        image = Image.open(io.BytesIO(processed.outputs["thumbnail"].data))
        assert abs(np.subtract(image.getpixel((5, 5)), (255, 0, 0))).max() <= 3, format_name


def test_the_first_picture_of_an_mpo_is_used(corpus):
    facts = process((corpus / "formats/frozenpond.mpo").read_bytes()).facts
    assert (facts.format, facts.media_type, facts.frames) == ("MPO", "image/jpeg", 2)


def test_an_empty_file_is_named_so():
    assert rejection(b"").code == "empty"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\n <HTML>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg/>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"just some words", "text"),
        ("schöne Grüße".encode(), "text"),
        (b'{"a": 1}', "JSON"),
        (b"BMW and other words that start alike", "text"),
        (b"depth,col1\n1,2\n", "text"),
        (b"PK\x03\x04" + bytes(30), "ZIP"),
        (bytes(50), "unknown"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(30), "video"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "sound"),
    ],
)
def test_what_is_no_picture_is_rejected_with_what_it_looks_like(data, word):
    rejected = rejection(data)
    assert rejected.code == "not_an_image"
    assert word in rejected.reason
    assert str(len(data)) in rejected.reason


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"8BPS\x00\x01" + bytes(40), "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"\x00\x00\x01\x00\x01\x00" + bytes(30), "ICO"),
        (b"P6\n4 4\n255\n" + bytes(48), "Netpbm"),
        (b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a", "JPEG XL"),
    ],
)
def test_other_picture_formats_are_rejected_by_name(data, name):
    rejected = rejection(data)
    assert rejected.code == "unsupported_format"
    assert name in rejected.reason


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x18ftypheic" + bytes(30),
        b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heicmiaf",
    ],
)
def test_a_heic_is_rejected_with_the_advice_where_its_decoder_is_not_installed(data, monkeypatch):
    monkeypatch.setitem(OPTIONAL_DECODERS, "HEIF", "pillow_heif_that_is_not_there")
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    rejected = rejection(data)
    assert rejected.code == "unsupported_format"
    assert "HEIC" in rejected.reason
    assert "pip install 'imgflow[heic]'" in rejected.reason


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_format_that_is_not_enabled_is_rejected_by_name(format_name):
    others = tuple(name for name in FORMATS if name != format_name)
    rejected = rejection(encoded(scene(), format_name), Limits(formats=others))
    assert rejected.code == "unsupported_format"


def test_an_mpo_is_rejected_where_only_plain_jpegs_are_enabled(corpus):
    data = (corpus / "formats/frozenpond.mpo").read_bytes()
    assert rejection(data, Limits(formats=("JPEG",))).code == "unsupported_format"


@pytest.mark.parametrize("limits", [{"formats": ("EPS",)}, {"formats": ()}, {"max_pixels": 0}])
def test_wrong_limits_are_a_wrong_setting(limits):
    with pytest.raises(SettingsError):
        Limits(**limits)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    ("limits", "code", "number"),
    [
        ({"max_pixels": 5999}, "too_many_pixels", "5,999"),
        ({"max_side": 99}, "too_long_side", "99"),
        ({"max_bytes": 100}, "too_many_bytes", "100"),
    ],
)
def test_each_limit_rejects_what_is_above_it(format_name, limits, code, number):
    rejected = rejection(encoded(scene(100, 60), format_name), Limits(**limits))
    assert rejected.code == code
    assert number in rejected.reason


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_picture_at_the_limits_is_accepted(format_name):
    data = encoded(scene(100, 60), format_name)
    process(data, limits=Limits(max_pixels=6000, max_side=100, max_bytes=len(data), max_frames=1))


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "PNG", "WEBP"])
def test_too_many_frames_are_rejected(format_name):
    frames = [Image.new("L", (8, 8), 50 * level) for level in range(5)]
    data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert rejection(data, Limits(max_frames=4)).code == "too_many_frames"


def bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "size", [(10_001, 10_000), (20_000, 6_000), (60_000, 60_000), (2**31 - 1,) * 2]
)
def test_a_bomb_is_rejected_from_its_header_without_a_warning(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rejection(bomb(*size)).code == "too_many_pixels"


def test_a_webp_canvas_is_not_allocated_before_it_is_checked():
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16382).to_bytes(3, "little") * 2
    data = b"RIFF" + struct.pack("<I", len(canvas) + 4) + b"WEBP" + canvas
    assert rejection(data).code == "too_many_pixels"


def test_pictures_between_pillows_limit_and_ours_bring_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for format_name in FORMATS:
            process(encoded(scene(300, 200), format_name))
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("format_name", [*FORMATS, "progressive JPEG", "gray JPEG", "LZW TIFF"])
def test_a_picture_that_is_cut_short_is_rejected_wherever_it_is_cut(format_name):
    image, name, options = scene(120, 90), format_name.rsplit(maxsplit=1)[-1], {}
    if format_name == "progressive JPEG":
        options = {"progressive": True}
    if format_name == "gray JPEG":
        image = image.convert("L")
    if format_name == "LZW TIFF":
        options = {"compression": "tiff_lzw"}
    data = encoded(image, name, **options)
    small = PhotoRecipe(thumbnail_size=(8, 8))
    codes = []
    for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
        for outputs in (("thumbnail",), ("grayscale",), ()):
            with pytest.raises(Rejected) as caught:
                process_photo(data[: int(len(data) * share)], small, LIMITS, outputs)
            codes.append(caught.value.code)
    assert set(codes) <= {"truncated", "corrupt"}
    if "TIFF" not in format_name:
        assert codes.count("truncated") >= len(codes) - 3, codes


def test_a_jpeg_without_its_last_byte_is_rejected_even_for_a_reduced_decode():
    data = encoded(scene(800, 600), "JPEG")
    with pytest.raises(Rejected, match="is incomplete") as caught:
        process_photo(data[:-1], PhotoRecipe(thumbnail_size=(8, 8)), LIMITS, ("thumbnail",))
    assert caught.value.code == "truncated"


def test_bytes_behind_the_picture_do_no_harm():
    data = encoded(scene(), "JPEG")
    assert process(data + b"junk" * 99).outputs == process(data).outputs


def test_damaged_pixel_data_is_rejected():
    data = bytearray(encoded(scene(), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 30] = bytes(30)
    assert rejection(bytes(data)).code in ("corrupt", "truncated")


def test_no_memory_becomes_a_rejection(monkeypatch):
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("imgflow.images.photo.fit", exhausted)
    assert rejection(encoded(scene(), "PNG")).code == "too_large"


def test_a_mistake_of_our_own_is_not_taken_for_a_bad_picture(monkeypatch):
    def mistaken(*_: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr("imgflow.images.formats.decoding.count_frames", mistaken)
    with pytest.raises(TypeError, match="ours"):
        process(encoded(scene(), "JPEG"))


@pytest.mark.parametrize("frame", range(4))
def test_the_count_of_frames_survives_damage(frame):
    frames = [Image.effect_noise((20, 20), 60 + level) for level in range(4)]
    for format_name in ("GIF", "TIFF"):
        whole = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
        cut = whole[: len(whole) * (frame + 1) // 4 - 5]
        with contextlib.suppress(Rejected):
            assert 1 <= open_photo(cut, LIMITS).facts.frames <= frame + 1


def test_a_tiff_whose_pages_form_a_ring_is_counted_to_an_end():
    data = bytearray(encoded(scene(), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    assert open_photo(bytes(data), LIMITS).facts.frames == 1


def test_threads_do_not_disturb_each_other():
    data = [encoded(scene(200, 100, seed), name) for seed, name in enumerate(FORMATS)]
    expected = [process(one).outputs for one in data]
    failures: list[object] = []

    def work(index: int) -> None:
        for _ in range(5):
            if process(data[index]).outputs != expected[index]:
                failures.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_only_the_enabled_decoders_are_ever_imported():
    script = """
import io, sys
from PIL import Image
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.images.formats.sniffing import suffix_mismatch
from imgflow.images.formats.decoding import Limits
from imgflow.errors import Rejected
assert "numpy" not in sys.modules
file = io.BytesIO(); Image.new("RGB", (9, 9)).save(file, "JPEG")
for data in (file.getvalue(), b"%!PS-Adobe", b"%PDF-1.4", b"GIF89a rubbish", b"II*\\0"):
    try:
        process_photo(data, PhotoRecipe(), Limits(), ("grayscale", "thumbnail"))
    except Rejected:
        pass
unwanted = ("Eps", "Wmf", "Pdf", "Psd", "Ico", "Fli", "Grib", "Hdf5", "Dds")
assert "pillow_heif" not in sys.modules
print([name for name in sys.modules if name.startswith(tuple("PIL." + u for u in unwanted))])
print("dagster" in sys.modules or "numpy" in sys.modules or "sqlalchemy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_the_settings_of_pillow_are_left_as_they_were():
    before = Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS
    process(encoded(corners(), "PNG"))
    rejection(b"\x89PNG rubbish")
    assert before == (Image.MAX_IMAGE_PIXELS, Image.WARN_POSSIBLE_FORMATS)


@pytest.mark.parametrize(
    ("name", "format_name", "note"),
    [
        ("a/b.PNG", "JPEG", "named .png, but is JPEG"),
        ("b.jpeg", "WEBP", "named .jpeg, but is WebP"),
        ("b.jpg", "HEIF", "named .jpg, but is HEIC"),
        ("b.heif", "HEIF", None),
        ("b.jpg", "MPO", None),
        ("b.TIFF", "TIFF", None),
        ("b", "JPEG", None),
        ("b.upload", "JPEG", None),
        (".png", "JPEG", None),
    ],
)
def test_a_name_that_promises_another_format_is_told(name, format_name, note):
    assert suffix_mismatch(name, format_name) == note
