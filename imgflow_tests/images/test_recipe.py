import pickle
import re
from dataclasses import fields, replace

import pytest

from imgflow.errors import SettingsError
from imgflow.images import outputs
from imgflow.images.outputs import PHOTO_OUTPUTS, enabled_outputs
from imgflow.images.photo_recipe import PhotoRecipe

BASE = PhotoRecipe(watermark_text="mark")
OTHER = {
    "thumbnail_size": (100, 100),
    "thumbnail_format": "webp",
    "grayscale_format": "png",
    "jpeg_quality": 50,
    "thumbnail_quality": 50,
    "background": (0, 0, 0),
    "watermark_text": "other",
    "proof_size": (99, 99),
    "watermark_font": "/fonts/a.ttf",
    "watermark_font_sha256": "a" * 64,
    "parameters": (("blur", "radius", 1.0),),
}
TOUCHED = {
    "thumbnail_size": {"thumbnail"},
    "thumbnail_format": {"thumbnail"},
    "grayscale_format": {"grayscale"},
    "jpeg_quality": {"grayscale", "proof"},
    "thumbnail_quality": {"thumbnail"},
    "background": {"grayscale", "thumbnail"},
    "watermark_text": {"proof"},
    "proof_size": {"proof"},
    "watermark_font": set(),
    "watermark_font_sha256": {"proof"},
    "parameters": set(),
}
KNOWN = {"grayscale": "dc696930e6ee84fc", "thumbnail": "179f9c5485666ac3"}


def test_every_setting_of_the_recipe_is_covered_here():
    assert {field.name for field in fields(PhotoRecipe)} == set(OTHER) == set(TOUCHED)


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_changes_the_fingerprints_of_its_outputs_only(name):
    changed = replace(BASE, **{name: OTHER[name]})
    touched = {o for o in PHOTO_OUTPUTS if changed.fingerprint(o) != BASE.fingerprint(o)}
    assert touched == TOUCHED[name]


def test_fingerprints_are_16_hexadecimal_letters_and_differ():
    found = {BASE.fingerprint(output) for output in PHOTO_OUTPUTS}
    assert len(found) == len(PHOTO_OUTPUTS)
    assert all(re.fullmatch("[0-9a-f]{16}", fingerprint) for fingerprint in found)


def test_the_default_fingerprints_are_known():
    # A change here means that every stored output is made anew: bump versions on purpose only.
    recipe = PhotoRecipe()
    assert {name: recipe.fingerprint(name) for name in ("grayscale", "thumbnail")} == KNOWN


def test_a_new_version_of_an_output_changes_its_fingerprint(monkeypatch):
    before = BASE.fingerprint("thumbnail"), BASE.fingerprint("proof")
    newer = replace(PHOTO_OUTPUTS["thumbnail"], version=99)
    monkeypatch.setitem(outputs.PHOTO_OUTPUTS, "thumbnail", newer)
    assert BASE.fingerprint("thumbnail") != before[0]
    assert BASE.fingerprint("proof") == before[1]


def test_a_recipe_survives_pickling():
    assert pickle.loads(pickle.dumps(BASE)) == BASE  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("text", "has_proof"), [(None, False), ("", False), (" ", False), ("a", True)]
)
def test_proofs_are_made_only_with_a_watermark(text, has_proof):
    names = enabled_outputs(PhotoRecipe(watermark_text=text))
    assert names == (
        ("grayscale", "thumbnail", "proof") if has_proof else ("grayscale", "thumbnail")
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"thumbnail_size": (0, 10)},
        {"thumbnail_size": (10, 20_000)},
        {"proof_size": (-1, 5)},
        {"thumbnail_format": "gif"},
        {"grayscale_format": "bmp"},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"thumbnail_quality": 0},
        {"background": (0, 0, 256)},
        {"watermark_text": "x" * 201},
    ],
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(SettingsError):
        PhotoRecipe(**wrong)
