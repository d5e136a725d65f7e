"""A picture so small that it fits into an event: text that a browser shows without fetching it."""

import base64
import io

from PIL import Image

from imgflow.images.modes import ALPHA, WIDE, narrow

MOST_CHARACTERS = 880
"""Of a picture as text: Dagster's UI shows Markdown in its place below 1,000 characters, of which
the link to the image's page takes some, and longer ones behind a link that opens a dialog."""

# Longest side in pixels and quality. A photograph takes 550 bytes at the first, where WebP
# takes 450 and three times as long; only noise needs the others.
_STEPS = ((56, 35), (48, 25), (32, 10), (16, 10))
_OVERSAMPLING = 4


def inline_picture(image: Image.Image) -> str:
    """Draw a small copy of a picture as a `data:` URI, transparent parts on white.

    Args:
        image: L, LA, RGB, RGBA or I;16; it stays as it is. How large it is hardly matters: of a
            large one, every few pixels are looked at.

    Returns:
        At most `MOST_CHARACTERS` characters; empty where even the smallest copy takes more.
    """
    for side, quality in _STEPS:
        file = io.BytesIO()
        _sampled(image, side).save(file, "JPEG", quality=quality, optimize=True)
        text = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        if len(text) <= MOST_CHARACTERS:
            return text
    return ""


def _sampled(image: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    coarse = min(image.width, _OVERSAMPLING * width), min(image.height, _OVERSAMPLING * height)
    small = image.resize(coarse, Image.Resampling.NEAREST)
    if small.mode == WIDE:
        if ALPHA in image.info:
            small.info[ALPHA] = image.info[ALPHA].resize(coarse, Image.Resampling.NEAREST)
        small = narrow(small)
    if small.mode in ("LA", "RGBA"):
        ground = Image.new(small.mode[:-1], small.size, "white")
        ground.paste(small.convert(ground.mode), mask=small.getchannel("A"))
        small = ground
    elif small.mode not in ("L", "RGB"):
        small = small.convert("RGB")
    small = small.resize((width, height), Image.Resampling.BOX)
    small.info = {}  # Pillow's encoder falls back on what the decoder left here
    return small
