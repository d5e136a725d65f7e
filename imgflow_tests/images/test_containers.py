"""Damage and cost that decoders keep to themselves: short JPEGs, many scans, much text."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from imgflow.errors import Rejected
from imgflow.images.formats.decoding import Limits, Photo, open_photo
from imgflow.images.formats.headers import MOST_SCANS, MOST_TEXT_BYTES
from imgflow_tests.images.pictures import encoded, scene

EOI = b"\xff\xd9"
SOS = b"\xff\xda"


def read(data: bytes) -> Photo:
    photo = open_photo(data, Limits())
    photo.check()
    return photo


def code_of(data: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        read(data)
    assert caught.value.reason.endswith(".")
    return caught.value.code


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    return re.sub(
        rb"(\xff[\xc0-\xc2]\x00.\x08)....",
        lambda found: found[1] + struct.pack(">HH", height, width),
        data,
        count=1,
        flags=re.DOTALL,
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_few_bytes_do_not_become_a_hundred_megapixels(options: dict[str, bool]) -> None:
    small = encoded(Image.new("RGB", (16, 16), "gray"), "JPEG", **options)
    assert len(small) < 1_000
    began = time.process_time()
    assert code_of(claiming(small, 10_000, 10_000)) == "truncated"
    assert time.process_time() - began < 5


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_jpeg_whose_data_end_early_is_cut_short_whatever_it_ends_with(
    mode: str, share: float
) -> None:
    data = encoded(scene(300, 200).convert(mode), "JPEG", quality=90)
    cut = data[: int(len(data) * share)]
    if cut.endswith(b"\xff"):
        cut += b"\0"
    for ending in (b"", EOI, EOI + bytes(100_000), EOI + data):
        assert code_of(cut + ending) == "truncated"


@pytest.mark.parametrize("restart", [0, 2])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (300, 200)])
def test_a_complete_jpeg_is_read_whatever_follows(size: tuple[int, int], restart: int) -> None:
    data = encoded(scene(*size), "JPEG", quality=85, restart_marker_rows=restart)
    pixels = np.asarray(read(data).luma())
    assert read(data).facts.notes == ()
    for ending in (b"junk" * 50_000, EOI, data):
        assert np.array_equal(np.asarray(read(data + ending).luma()), pixels)


def test_a_complete_jpeg_with_something_else_for_its_end_marker_is_read() -> None:
    data = encoded(scene(300, 200), "JPEG", quality=90)
    photo = read(data.removesuffix(EOI) + bytes(100))
    assert np.array_equal(np.asarray(photo.luma()), np.asarray(read(data).luma()))


def with_scans(scans: int, side: int) -> bytes:
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data[data.rindex(SOS) : -2]
    return data[:-2] + last * (scans - data.count(SOS)) + EOI


def test_many_scans_are_refused_before_they_cost_anything() -> None:
    began = time.process_time()
    assert code_of(with_scans(5_000, 4_000)) == "too_many_scans"
    assert time.process_time() - began < 1
    assert code_of(with_scans(MOST_SCANS + 1, 64)) == "too_many_scans"
    assert read(with_scans(MOST_SCANS, 64)).facts.notes == ()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


# What libjpeg passes over on its way to the next marker.
PASSED_OVER = {"restart": b"\xff\xd0", "junk": bytes(3), "stuffing": b"\xff\x00", "fill": b"\xff"}


@pytest.mark.parametrize("inserted", PASSED_OVER.values(), ids=PASSED_OVER)
def test_scans_are_counted_whatever_the_decoder_passes_over_on_its_way(inserted: bytes) -> None:
    data = with_scans(MOST_SCANS + 1, 64)
    frame = data.index(b"\xff\xc2")
    assert code_of(data[:frame] + inserted + data[frame:]) == "too_many_scans"
    data = with_scans(MOST_SCANS, 64)
    assert read(data[:frame] + inserted + data[frame:]).facts.width == 64


@pytest.mark.parametrize("comment", [EOI, b"\xff", SOS * 5_000], ids=["end", "half", "scans"])
def test_a_comment_between_scans_does_not_change_how_many_there_are(comment: bytes) -> None:
    for scans in (MOST_SCANS, MOST_SCANS + 1):
        data = with_scans(scans, 64)
        second = data.index(SOS, data.index(SOS) + 1)
        data = data[:second] + segment(0xFE, comment) + data[second:]
        if scans == MOST_SCANS:
            assert read(data).facts.width == 64
        else:
            assert code_of(data) == "too_many_scans"


def test_scans_of_arithmetic_coding_are_counted_too() -> None:
    frame = struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0"
    scans = [b"\1\1\0\0\0\1", *[b"\1\1\0\1\1\1"] * MOST_SCANS]
    start = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xCA, frame)
    data = start + b"".join(segment(0xDA, scan) for scan in scans) + EOI
    assert code_of(data) == "too_many_scans"


def test_scans_of_what_follows_the_picture_do_not_count() -> None:
    data = encoded(scene(90, 60), "JPEG", progressive=True)
    assert read(data * 20).facts.width == 90


TEXT = b"a" * (MOST_TEXT_BYTES + 1)
LARGE_TEXTS = {
    "zTXt": [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT))],
    "iTXt": [chunk(b"iTXt", b"Comment\0\1\0en\0\0" + zlib.compress(TEXT))],
    "odd iTXt": [chunk(b"iTXt", b"Comment\0\2\0en\0\0" + zlib.compress(TEXT))],
    "many zTXt": [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT, 9))] * 1_000,
    "damaged zTXt": [chunk(b"zTXt", b"C\0\0" + zlib.compress(TEXT[2:], 9)[:-1] + b"!")] * 1_000,
    "tEXt": [chunk(b"tEXt", b"Comment\0" + TEXT)],
    "many": [chunk(b"tEXt", b"Comment\0" + b"a" * 1_000_000)] * 70,
}


@pytest.mark.parametrize("texts", LARGE_TEXTS.values(), ids=LARGE_TEXTS)
@pytest.mark.parametrize("is_behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_with_much_text_is_read_without_it(
    texts: list[bytes], is_behind: bool, depth: int
) -> None:
    picture = scene(60, 40)
    if depth == 16:
        picture = Image.fromarray(np.arange(2_400, dtype=np.uint16).reshape(40, 60) * 27)
    data = encoded(picture, "PNG")
    at = data.index(b"IEND") - 4 if is_behind else data.index(b"IDAT") - 4
    small = chunk(b"tEXt", b"Copyright\0somebody")
    began = time.process_time()
    photo = read(data[:at] + small + b"".join(texts) + data[at:])
    assert time.process_time() - began < 5
    assert photo.facts.notes == ("text of more than 4 MiB ignored",)
    assert b"somebody" in photo.credit
    assert np.array_equal(np.asarray(photo.luma()), np.asarray(read(data).luma()))


def test_text_of_a_size_that_is_written_stays() -> None:
    data = encoded(scene(60, 40), "PNG")
    at = data.index(b"IDAT") - 4
    large = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3 * 2**20))
    assert read(data[:at] + large + data[at:]).facts.notes == ()


def test_a_profile_that_is_too_large_is_noted_and_the_picture_read() -> None:
    file = io.BytesIO()
    scene(60, 40).save(file, "PNG", icc_profile=bytes(MOST_TEXT_BYTES + 1))
    assert read(file.getvalue()).facts.notes == ("icc profile of more than 4 MiB ignored",)
