"""The watermark of proofs: fonts and layout for text in any script, and drawing it on a picture.

The text is repeated across the picture, slanted and half transparent, legible on light and dark.
The font files are in `imgflow.images.fonts`.
"""

import hashlib
import io
import lzma
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from imgflow.errors import SettingsError, Trouble

# Lettering: which font has which letter, and how wide a line becomes.
#
# DejaVu Sans covers Europe and the Near East, GNU Unifont all scripts, and Unifont Upper code
# points beyond the first 65,536, emoji included. imgflow ships them, so that a text looks the same
# on every machine. A configured font replaces all three, and must have every letter.


SHIPPED = ("dejavu-sans.ttf.xz", "unifont.otf.xz", "unifont-upper.otf.xz")
_NO_SUCH_LETTER = "\U0010ffff"  # never assigned, so every font draws its "unknown" glyph
_PROBE_PIXELS = 32
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_JOINING_SCRIPTS = range(0x0900, 0x1900)  # of India and South-East Asia, Tibet, Mongolia


@dataclass(frozen=True)
class Typeface:
    """The fonts that a text is drawn with.

    Attributes:
        file: Path of a configured font; empty for the ones that imgflow ships.
        sha256: Hash that this file had when it was configured.
    """

    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Line:
    """One line of text as runs of a single font each, from left to right."""

    runs: tuple[tuple[str, ImageFont.FreeTypeFont], ...]

    @property
    def width(self) -> int:
        """Width in pixels, at least 1."""
        return max(1, round(sum(font.getlength(text) for text, font in self.runs)))

    def draw(self, draw: ImageDraw.ImageDraw, left: float, baseline: float) -> None:
        """Draw the line in full opacity onto a picture of mode L."""
        for text, font in self.runs:
            draw.text((left, baseline), text, fill=255, font=font, anchor="ls")
            left += font.getlength(text)


def font_digest(file: str) -> str:
    """Check that a file is a usable font, and return its SHA-256 in hexadecimal.

    Raises:
        SettingsError: The file cannot be read, or is not a font.
    """
    try:
        data = Path(file).read_bytes()
        ImageFont.truetype(io.BytesIO(data), _PROBE_PIXELS)
    except OSError as error:
        reason = error.strerror or "it is no font"
        raise SettingsError(
            f"IMGFLOW_WATERMARK_FONT: {file!r} cannot be used ({reason}); name a file of TrueType "
            "or OpenType, or leave it empty."
        ) from error
    return hashlib.sha256(data).hexdigest()


def line_of(text: str, pixels: int, typeface: Typeface) -> Line:
    """Lay out a text on one line; line breaks and control characters count as spaces.

    Args:
        text: May mix scripts.
        pixels: Font size.
        typeface: Fonts that passed `check_letters` for this text.

    Raises:
        SettingsError: No font has one of the letters, or the script needs a library that is
            missing.
        Trouble: The font file cannot be read, or has changed since it was configured.
    """
    cleaned = _cleaned(text)
    names = (typeface.file,) if typeface.file else SHIPPED
    layout = _layout(cleaned)
    # A single font looks better than a mix.
    for name in names:
        probe = _probe(name, typeface.sha256)
        if all(_has(probe, letter) for letter in cleaned):
            return Line(((cleaned, _font(name, typeface.sha256, pixels, layout)),))
    runs: list[tuple[str, str]] = []
    for letter in cleaned:
        chosen = _font_of(letter, names, typeface)
        joins = runs and (unicodedata.combining(letter) or chosen == runs[-1][1])
        if joins:
            runs[-1] = (runs[-1][0] + letter, runs[-1][1])
        else:
            runs.append((letter, chosen))
    fonts = {name: _font(name, typeface.sha256, pixels, layout) for _, name in runs}
    return Line(tuple((run, fonts[name]) for run, name in runs))


def check_letters(text: str, typeface: Typeface) -> None:
    """Make sure that a text can be drawn.

    Raises:
        SettingsError: It cannot; the message names the letter or the library that is missing.
    """
    if text.strip():
        line_of(text, _PROBE_PIXELS, typeface)


def _cleaned(text: str) -> str:
    spaced = (" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    return unicodedata.normalize("NFC", " ".join("".join(spaced).split()))


def _font_of(letter: str, names: Sequence[str], typeface: Typeface) -> str:
    for name in names:
        if _has(_probe(name, typeface.sha256), letter):
            return name
    where = f"the font {typeface.file!r}" if typeface.file else "no font of imgflow"
    verb = "lacks" if typeface.file else "has"
    called = unicodedata.name(letter, "without a name")
    raise SettingsError(
        f"IMGFLOW_WATERMARK_TEXT: {where} {verb} the letter {letter!r} (U+{ord(letter):04X}, "
        f"{called}). Set IMGFLOW_WATERMARK_FONT to the file of a font that has it"
        f"{', or leave it empty' if typeface.file else ''}, or leave the letter out."
    )


def _layout(text: str) -> ImageFont.Layout:
    """Shaped layout only for scripts that need it, since its library is not on every machine.

    All other texts have the same pixels with and without that library.
    """
    needs_shaping = any(
        unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT
        or unicodedata.combining(letter)
        or ord(letter) in _JOINING_SCRIPTS
        for letter in text
    )
    if not needs_shaping:
        return ImageFont.Layout.BASIC
    if not features.check_feature("raqm"):
        raise SettingsError(
            "IMGFLOW_WATERMARK_TEXT: its script joins letters or runs from right to left, for "
            "which Pillow needs the library FriBiDi; install it (`apt-get install libfribidi0`)."
        )
    return ImageFont.Layout.RAQM


def _has(probe: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether a font has a letter; invisible ones (joiners, selectors) count as present."""
    if unicodedata.category(letter) in ("Zs", "Cf") or 0xFE00 <= ord(letter) <= 0xFE0F:  # noqa: PLR2004 - variation selectors
        return True
    return bytes(probe.getmask(letter)) != bytes(probe.getmask(_NO_SUCH_LETTER))


@lru_cache(maxsize=4)
def _probe(name: str, sha256: str) -> ImageFont.FreeTypeFont:
    return _font(name, sha256, _PROBE_PIXELS, ImageFont.Layout.BASIC)


@lru_cache(maxsize=32)
def _font(name: str, sha256: str, pixels: int, layout: ImageFont.Layout) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(io.BytesIO(_data(name, sha256)), pixels, layout_engine=layout)


@lru_cache(maxsize=4)
def _data(name: str, sha256: str) -> bytes:
    if name in SHIPPED:
        return lzma.decompress(files("imgflow.images.fonts").joinpath(name).read_bytes())
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise Trouble(f"the font {name!r} of the watermark cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Trouble(f"the font {name!r} of the watermark has changed; start imgflow again")
    return data


# Drawing: the slanted pattern over the picture.

_ANGLE_DEGREES = 30
_TEXT_OPACITY = 0.55
_SHADOW_OPACITY = 0.45
_LINES_ALONG_DIAGONAL = 9
_SMALLEST_LETTERS_PIXELS = 8


def watermarked(
    image: Image.Image,
    text: str,
    typeface: Typeface = Typeface(),
) -> Image.Image:
    """Draw `text` across an entire picture.

    Args:
        image: Mode RGB or RGBA; its alpha channel is kept unchanged.
        text: Must not be blank; line breaks count as spaces.
        typeface: Fonts that passed `check_letters` for this text.

    Returns:
        A new picture of the same mode and size.
    """
    marked = image.convert("RGB")
    letters, shadow = _masks(text, typeface, image.size)
    marked.paste((0, 0, 0), mask=shadow)
    marked.paste((255, 255, 255), mask=letters)
    if image.mode == "RGBA":
        marked.putalpha(image.getchannel("A"))
    return marked


@lru_cache(maxsize=8)
def _masks(text: str, typeface: Typeface, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Opacity of letters and shadow, mode L; cached, as the proofs of a recipe share few sizes."""
    # A square of this side covers the picture at any angle.
    side = int((size[0] ** 2 + size[1] ** 2) ** 0.5) + 2
    letters_pixels = max(_SMALLEST_LETTERS_PIXELS, side // (2 * _LINES_ALONG_DIAGONAL))
    line = line_of(text, letters_pixels, typeface)
    width = line.width + letters_pixels
    height = 2 * letters_pixels
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for row, y in enumerate(range(0, side, height)):
        # Every other row is shifted by half a text, so that no diagonal stays clean.
        for x in range(-(width // 2) * (row % 2), side, width):
            line.draw(draw, x, y + letters_pixels)
    slanted = canvas.rotate(_ANGLE_DEGREES, Image.Resampling.BICUBIC)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    offset = max(1, letters_pixels // 16)

    def cut(shift: int, opacity: float) -> Image.Image:
        # `crop` pads with 0, which is fully transparent.
        box = (left - shift, top - shift, left - shift + size[0], top - shift + size[1])
        return slanted.crop(box).point(lambda level: round(level * opacity))

    return cut(0, _TEXT_OPACITY), cut(offset, _SHADOW_OPACITY)
