"""A photograph that is full of small faults: what is kept of them is small too."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from imgflow.images.formats.decoding import Limits, open_photo

TAGS = 20_000
# Width, height, bits, compression, photometric, strip offset, samples, rows, strip bytes.
PICTURE = {256: 8, 257: 8, 258: 1, 259: 1, 262: 1, 273: 20, 277: 1, 278: 8, 279: 8}
SHORT, UNDEFINED = 3, 7


def tiff(tags: dict[int, int]) -> bytes:
    """An image file directory with so many more tags, each larger than the file."""
    lines = [struct.pack("<HHII", tag, SHORT, 1, value) for tag, value in tags.items()]
    lines += [struct.pack("<HHII", 40_000 + n, UNDEFINED, 2**30, 8) for n in range(TAGS)]
    return b"II*\0" + struct.pack("<IH", 8, len(lines)) + b"".join(lines) + bytes(100)


def with_exif(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, name)
    data, exif = file.getvalue(), tiff({})
    if name == "PNG":
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, name, exif=exif)
        return file.getvalue()
    parts = [b"Exif\0\0" + exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = [struct.pack(">HH", 0xFFE1, len(part) + 2) + part for part in parts]
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("name", ["TIFF", "JPEG", "PNG"])
def test_to_fill_the_catalogue_with_warnings(name: str) -> None:
    photo = open_photo(tiff(PICTURE) if name == "TIFF" else with_exif(name), Limits())
    photo.check()
    notes = photo.facts.notes
    assert len(notes) <= 12
    assert sum(map(len, notes)) < 4_000
    assert any("more warnings" in note for note in notes)
