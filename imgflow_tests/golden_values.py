"""What the files of the golden set must give, by the formulas of the standards."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from imgflow_tests.images.pictures import corners

PLACES = ((9, 5), (29, 5), (9, 17), (29, 17))


COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


NINE = ((255, 0, 0), (1, 1, 1), (17, 203, 99), (128, 64, 32), (255, 255, 0), (0, 255, 255))


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def luma(colour: Any) -> int:
    """BT.601 in 16-bit fixed point."""
    red, green, blue = (int(value) for value in colour)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def encode_srgb(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def from_adobe(colour: Any, white: int) -> np.ndarray:
    """A colour of Adobe RGB's primaries and a gamma of 1.8 in sRGB, both relative to D50."""
    primaries = np.array(
        [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
    )
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    light = np.linalg.inv(srgb) @ primaries @ (np.asarray(colour) / white) ** 1.8
    return np.rint(encode_srgb(light) * white).astype(int)


def lanczos(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Lanczos with three lobes, widened by the scale, in double precision."""

    def weights(size: int, new: int) -> np.ndarray:
        scale = size / new
        x = (np.arange(size) + 0.5 - (np.arange(new)[:, None] + 0.5) * scale) / scale
        kernel = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
        return kernel / kernel.sum(axis=1, keepdims=True)

    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    made = np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(float), columns, optimize=True)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def case(name: str, file: str, format_name: str, mode: str, **values: Any) -> dict[str, Any]:
    facts = {"format": format_name, "mode": mode, "width": 40, "height": 24, "frames": 1}
    facts.update(values.pop("facts", {}))
    return {"name": name, "file": file, "facts": facts, **values}


def quarters(levels: Any = None) -> dict[str, Any]:
    """What grayscale and thumbnail of the four quarters have in their middles."""
    levels = levels or [luma(colour) for colour in COLOURS]
    return {
        "gray": [[*place, level] for place, level in zip(PLACES, levels, strict=True)],
        "colours": [[*place, list(colour)] for place, colour in zip(PLACES, COLOURS, strict=True)],
    }


def clear(mode: str = "RGBA") -> Image.Image:
    """The quarters, the upper two clear to a half."""
    image = corners("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(128, (0, 0, 40, 12))
    image.putalpha(alpha)
    return image.convert(mode)


def vectors() -> Image.Image:
    image = Image.new("RGB", (len(NINE), 1))
    for x, colour in enumerate(NINE):
        image.putpixel((x, 0), colour)
    return image


def wide_vectors() -> np.ndarray:
    return np.random.default_rng(601).integers(0, 65536, (2, 6, 4)).astype(np.uint16)
