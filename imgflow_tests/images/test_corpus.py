import random
from pathlib import Path

import pytest

from imgflow.errors import Rejected
from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import ProcessedPhoto, process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import opened

ALL = ("grayscale", "thumbnail", "proof")
RECIPE = PhotoRecipe(watermark_text="PROOF")
CODES = {
    "empty",
    "not_an_image",
    "unsupported_format",
    "too_many_bytes",
    "too_many_pixels",
    "too_long_side",
    "too_many_frames",
    "too_many_scans",
    "too_large",
    "truncated",
    "corrupt",
}
STRICTER_THAN_THE_LIST = {
    # The list calls these readable, but Pillow 12 and 13 raise OSError when they are loaded.
    "formats/broken_data_stream.png",
    "formats/truncated_end_chunk.png",
}
READ_WITHOUT_THEIR_TEXT = {
    # The list has Pillow's error about the size of their texts; the pixels are sound.
    "hostile/png_decompression_dos.png",
}
OWN = {
    "own/zero-bytes.jpg": "empty",
    "own/html-as-jpg.jpg": "not_an_image",
    "own/svg.svg": "not_an_image",
    "own/jpeg-only-soi.jpg": "truncated",
    "own/png-named-jpg.jpg": None,
    "own/jpeg-named-png.png": None,
    "own/jpeg-with-trailing-junk.jpg": None,
    "own/no-extension": None,
}


def outcome(data: bytes, limits: Limits = Limits()) -> ProcessedPhoto | Rejected:  # noqa: B008 - frozen
    try:
        return process_photo(data, RECIPE, limits, ALL)
    except Rejected as rejected:
        return rejected


@pytest.mark.parametrize("folder", ["photos", "exif", "pngsuite", "formats", "hostile", "own"])
def test_every_file_is_processed_or_rejected_as_listed(folder, corpus: Path, provenance):
    names = sorted(f"{folder}/{path.name}" for path in (corpus / folder).iterdir())
    assert names
    wrong = {}
    for name in names:
        found = outcome((corpus / name).read_bytes())
        listed = provenance[name]["pillow13"]
        if name in OWN:
            is_fine = OWN[name] is None
        else:
            is_listed = listed in ("ok", "derived") or name in READ_WITHOUT_THEIR_TEXT
            is_fine = is_listed and name not in STRICTER_THAN_THE_LIST
        if isinstance(found, Rejected):
            assert found.code in CODES
            assert len(found.reason) > 20
            if is_fine or OWN.get(name, found.code) != found.code:
                wrong[name] = (listed, found.code)
        elif not is_fine:
            wrong[name] = (listed, "processed")
        else:
            check_outputs(name, found)
    assert wrong == {}


def check_outputs(name: str, found: ProcessedPhoto) -> None:
    facts = found.facts
    gray, thumbnail, proof = (found.outputs[output] for output in ALL)
    assert (gray.width, gray.height) == (facts.width, facts.height), name
    assert opened(gray).size == (gray.width, gray.height), name
    assert max(thumbnail.width, thumbnail.height) <= 256, name
    assert abs(thumbnail.width * facts.height - thumbnail.height * facts.width) <= max(
        facts.width, facts.height
    ), name
    assert max(proof.width, proof.height) <= 512, name
    for output in found.outputs.values():
        assert "icc_profile" not in opened(output).info, name


def test_sizes_and_modes_are_the_listed_ones(corpus: Path, provenance):
    compared = 0
    for name, row in provenance.items():
        if row["pillow13"] != "ok" or not row["mode"] or name.startswith("depth/"):
            continue
        found = outcome((corpus / name).read_bytes())
        assert isinstance(found, ProcessedPhoto), name
        turned = found.facts.orientation > 4 and row["format"] != "TIFF"
        size = (int(row["h"]), int(row["w"])) if turned else (int(row["w"]), int(row["h"]))
        facts = found.facts
        assert (facts.width, facts.height) == size, name
        assert (facts.format, facts.mode) == (row["format"], row["mode"]), name
        assert str(facts.orientation) == (row["orientation"] or "1"), name
        compared += 1
    assert compared > 150


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_to_a_file_raises_anything_but_rejected(seed, corpus: Path):
    rng = random.Random(seed)
    paths = [
        path
        for folder in ("pngsuite", "formats", "hostile")
        for path in sorted((corpus / folder).iterdir())
        if path.stat().st_size < 40_000
    ]
    limits = Limits(max_pixels=2_000_000)
    outcomes = set()
    for _ in range(400):
        data = bytearray(rng.choice(paths).read_bytes())
        for _ in range(rng.choice((1, 3, 12))):
            at = rng.randrange(min(len(data), rng.choice((64, 512, 10**6))))
            data[at] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        found = outcome(bytes(data), limits)
        outcomes.add(found.code if isinstance(found, Rejected) else "processed")
    assert {"processed", "truncated", "corrupt"} <= outcomes
