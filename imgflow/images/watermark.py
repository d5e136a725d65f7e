"""A text repeated across a picture, slanted and half transparent, readable on light and dark."""

from functools import lru_cache

from PIL import Image, ImageDraw

from imgflow.images.lettering import Typeface, line_of

_ANGLE_DEGREES = 30
_TEXT_OPACITY = 0.55
_SHADOW_OPACITY = 0.45
_LINES_ALONG_DIAGONAL = 9
_SMALLEST_LETTERS_PIXELS = 8


def watermarked(
    image: Image.Image,
    text: str,
    typeface: Typeface = Typeface(),  # noqa: B008 - frozen
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
