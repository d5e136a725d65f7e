"""Watermarks in any script: each letter is drawn, with the same font everywhere."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from imgflow.errors import SettingsError, Trouble
from imgflow.images.outputs import enabled_outputs
from imgflow.images.watermark import (
    SHIPPED,
    Typeface,
    check_letters,
    font_digest,
    line_of,
)
from imgflow.settings.variables import Settings

TEXTS = {
    "Latin": "© Zoë Müller",
    "Cyrillic": "Привет",
    "Greek": "Ελλάδα",
    "Chinese": "写真家",
    "Japanese": "日本語カメラ",
    "Korean": "한국어",
    "Hebrew": "עברית",
    "Arabic": "مرحبا",
    "Hindi": "हिन्दी",
    "Thai": "ไทย",
    "emoji": "🙂📷",
    "mixed": "© 写真 Zoë 🙂",
}


def drawn(text: str, typeface: Typeface = Typeface()) -> np.ndarray:  # noqa: B008 - frozen
    line = line_of(text, 40, typeface)
    picture = Image.new("L", (line.width + 20, 80))
    line.draw(ImageDraw.Draw(picture), 10, 55)
    return np.asarray(picture)


@pytest.fixture
def dejavu(tmp_path: Path) -> Path:
    file = tmp_path / "font.ttf"
    file.write_bytes(
        lzma.decompress(files("imgflow.images.fonts").joinpath(SHIPPED[0]).read_bytes())
    )
    return file


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_script_has_letters_of_its_own(text: str) -> None:
    assert drawn(text).max() == 255
    for letter in set(text) - {" "}:
        assert not np.array_equal(drawn(letter)[:, :40], drawn("\u25a1")[:, :40]), letter
    # Other letters look otherwise, which boxes for the unknown would not.
    first, second = sorted(letter for letter in set(text) if letter.isalnum() or letter > "\u2000")[
        :2
    ]
    assert drawn(first).tobytes() != drawn(second).tobytes()


def test_accents_are_drawn() -> None:
    above = slice(0, 32)
    assert drawn("é")[above].sum() > drawn("e")[above].sum()


@pytest.mark.skipif(not features.check_feature("raqm"), reason="Pillow finds no FriBiDi here")
def test_arabic_letters_are_joined_and_run_from_right_to_left() -> None:
    joined = drawn("مرحبا")
    apart = sum(line_of(letter, 40, Typeface()).width for letter in "مرحبا")
    assert joined.shape[1] - 20 < apart
    # The first letter of the two is drawn on the right.
    font = line_of("אב", 40, Typeface()).runs[0][1]
    data = lzma.decompress(files("imgflow.images.fonts").joinpath(SHIPPED[0]).read_bytes())
    plain = ImageFont.truetype(io.BytesIO(data), 40, layout_engine=ImageFont.Layout.BASIC)
    assert bytes(font.getmask("אב")) == bytes(plain.getmask("בא"))


def test_plain_text_needs_no_shaping_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn("© Zoë 写真").tobytes()
    monkeypatch.setattr(features, "check_feature", lambda _: False)
    assert drawn("© Zoë 写真").tobytes() == before
    with pytest.raises(SettingsError, match="FriBiDi"):
        check_letters("مرحبا", Typeface())


def test_a_letter_that_no_font_has_is_refused_by_name(dejavu: Path) -> None:
    with pytest.raises(SettingsError, match=r"IMGFLOW_WATERMARK_TEXT: .*U\+E123"):
        check_letters("a\ue123", Typeface())
    own = Typeface(str(dejavu), font_digest(str(dejavu)))
    check_letters("Zoë", own)
    with pytest.raises(
        SettingsError, match=r"lacks the letter '写' \(U\+5199, CJK UNIFIED"
    ) as told:
        check_letters("Zoë 写真", own)
    assert "IMGFLOW_WATERMARK_FONT" in str(told.value)


def test_a_font_of_ones_own_is_part_of_the_recipe_by_its_content(
    dejavu: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = make_settings(watermark_text="PROOF").photo_recipe
    own = make_settings(watermark_text="PROOF", watermark_font=str(dejavu)).photo_recipe
    assert enabled_outputs(own) == ("grayscale", "thumbnail", "proof")
    assert own.fingerprint("proof") != shipped.fingerprint("proof")
    assert own.fingerprint("thumbnail") == shipped.fingerprint("thumbnail")
    other = dejavu.with_name("other.ttf")
    other.write_bytes(dejavu.read_bytes())
    monkeypatch.chdir(dejavu.parent)
    moved = make_settings(watermark_text="PROOF", watermark_font="other.ttf").photo_recipe
    assert moved.watermark_font == str(other)
    assert moved.fingerprint("proof") == own.fingerprint("proof")


def test_a_font_that_changed_since_it_was_chosen_makes_no_proof(dejavu: Path) -> None:
    own = Typeface(str(dejavu), "0" * 64)
    with pytest.raises(Trouble, match="has changed"):
        line_of("a", 20, own)


@pytest.mark.parametrize("content", [None, b"no font at all"])
def test_a_font_that_is_none_is_a_wrong_setting(
    content: bytes | None, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    file = tmp_path / "a.ttf"
    if content is not None:
        file.write_bytes(content)
    settings = make_settings(watermark_text="PROOF", watermark_font=str(file))
    with pytest.raises(SettingsError, match="IMGFLOW_WATERMARK_FONT"):
        _ = settings.photo_recipe


def test_the_fonts_keep_their_licences() -> None:
    licences = files("imgflow.images.fonts").joinpath("LICENSES.txt").read_text()
    assert {name for name in SHIPPED if name in licences} == set(SHIPPED)
    assert "SIL OPEN FONT LICENSE Version 1.1" in licences
    assert "Bitstream Vera" in licences


@pytest.mark.parametrize("name", SHIPPED)
def test_fonts_are_unpacked_in_little_memory(name: str) -> None:
    # xz's strongest presets ask for 64 MB to unpack 5, which a worker may not have.
    packed = files("imgflow.images.fonts").joinpath(name).read_bytes()
    unpacker = lzma.LZMADecompressor(memlimit=8 * 2**20)
    assert unpacker.decompress(packed)[:4] in (b"OTTO", b"\0\1\0\0")
