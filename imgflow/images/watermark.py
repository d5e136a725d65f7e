"""A text repeated across a picture, slanted and half transparent, readable on light and dark."""

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

# A line of text in any script: which font has which letter, and how wide it becomes.
#
# DejaVu Sans has the letters of Europe and the Near East, GNU Unifont those of all scripts, Unifont
# Upper what lies beyond the first 65,536, emoji among it. They come with imgflow, so that a text
# looks the same on every machine. A font of one's own takes their place, and must have every
# letter.


SHIPPED = ("dejavu-sans.ttf.xz", "unifont.otf.xz", "unifont-upper.otf.xz")
_NO_SUCH_LETTER = "\U0010ffff"  # never assigned, so every font draws what it draws for the unknown
_PROBE_PIXELS = 32
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_JOINING_SCRIPTS = range(0x0900, 0x1900)  # of India and South-East Asia, Tibet, Mongolia


@dataclass(frozen=True)
class Typeface:
    """The fonts that a text is drawn with.

    Attributes:
        file: Of a font of one's own; empty: the ones that come with imgflow.
        sha256: Of that file when it was chosen.
    """

    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Line:
    """A text on one line, in runs of one font each, from left to right."""

    runs: tuple[tuple[str, ImageFont.FreeTypeFont], ...]

    @property
    def width(self) -> int:
        """In pixels, at least 1."""
        return max(1, round(sum(font.getlength(text) for text, font in self.runs)))

    def draw(self, draw: ImageDraw.ImageDraw, left: float, baseline: float) -> None:
        """Draw it in full opacity onto a picture of mode L."""
        for text, font in self.runs:
            draw.text((left, baseline), text, fill=255, font=font, anchor="ls")
            left += font.getlength(text)


def font_digest(file: str) -> str:
    """SHA-256 of a font file, once it was read as one.

    Raises:
        SettingsError: There is none of that name, or it is no font.
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
    """Lay a text out on one line; breaks and control characters count as spaces.

    Args:
        text: Any.
        pixels: Size of the font.
        typeface: For which `check_letters` had no objection.

    Raises:
        SettingsError: No font has one of the letters, or its script needs a library that is not
            there.
        Trouble: The font file is not the one that was chosen.
    """
    cleaned = _cleaned(text)
    names = (typeface.file,) if typeface.file else SHIPPED
    layout = _layout(cleaned)
    # One font for all of it looks better than two.
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
        SettingsError: It names the letters that cannot, or the library that is not there.
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
    """Shaped layout only where a script needs it: Pillow finds its library on some machines only.

    The same text so has the same pixels with and without it.
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
    """Whether a font has a letter; what is not seen (joiners, selectors) every font has."""
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
    """Draw `text` over all of a picture.

    Args:
        image: Mode RGB or RGBA; its alpha channel stays as it is.
        text: Not blank; line breaks count as spaces.
        typeface: The fonts, which have all of its letters.

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
    """Opacities of letters and shadow, mode L. Cached, as proofs of one recipe share few sizes."""
    # A square of this side covers the picture at any angle.
    side = int((size[0] ** 2 + size[1] ** 2) ** 0.5) + 2
    letters_pixels = max(_SMALLEST_LETTERS_PIXELS, side // (2 * _LINES_ALONG_DIAGONAL))
    line = line_of(text, letters_pixels, typeface)
    width = line.width + letters_pixels
    height = 2 * letters_pixels
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for row, y in enumerate(range(0, side, height)):
        # Every second row is shifted by half, so that no clean diagonal remains.
        for x in range(-(width // 2) * (row % 2), side, width):
            line.draw(draw, x, y + letters_pixels)
    slanted = canvas.rotate(_ANGLE_DEGREES, Image.Resampling.BICUBIC)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    offset = max(1, letters_pixels // 16)

    def cut(shift: int, opacity: float) -> Image.Image:
        # `crop` fills what it takes from outside with 0, which is no opacity.
        box = (left - shift, top - shift, left - shift + size[0], top - shift + size[1])
        return slanted.crop(box).point(lambda level: round(level * opacity))

    return cut(0, _TEXT_OPACITY), cut(offset, _SHADOW_OPACITY)
