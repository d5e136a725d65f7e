"""Converts every mode that Pillow's decoders produce to one of the five that the outputs handle.

`L`, `LA`, `RGB`, `RGBA`: 8 bits a channel. `I;16`: 16-bit grayscale in native byte order, 0 to
65535. Colour in 16 bits a channel is in `imgflow.images.wide`, profiles in `imgflow.images.colour`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDE = "I;16"
ALPHA = "imgflow alpha"
"""Key in the `info` of an I;16 picture for its 16-bit alpha, since no mode of Pillow has both."""
_SIXTEEN_BITS = 65535
_EIGHT_BITS = 255
_BAND_ROWS = 128
_ALREADY_PLAIN = ("L", "LA", "RGB", "RGBA", "CMYK", WIDE)
_TARGETS = {
    "1": "L",
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}
_SMALL_GRAY_SCALES = {"L;2": 85, "L;4": 17}


def raw_mode(image: Image.Image) -> str:
    """How the file stores its samples, such as `RGB;16B`; `load` loses it."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        return first if isinstance(first, str) else ""
    return ""


def plain(image: Image.Image, stored: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert a picture of any mode to L, LA, RGB, RGBA, CMYK or I;16.

    Palettes are expanded, transparent colours (`tRNS`) and premultiplied alpha become straight
    alpha, and an alpha channel that is opaque everywhere is dropped. A transparent level of a
    16-bit gray picture stays in `info["transparency"]`, as Pillow has no 16-bit mode with alpha.
    32-bit integers and floats follow `wide_from_numbers`.

    Args:
        image: Picture whose pixels are loaded.
        stored: What `raw_mode` returned before they were.

    Returns:
        The picture, and notes on what was lost.
    """
    notes: tuple[str, ...] = ()
    if image.mode in ("I", "F"):
        picture, rule = wide_from_numbers(image)
        return picture, (*notes, rule)
    if image.mode.startswith("I;16"):
        return _native_wide(image, stored, notes)
    return _without_opaque_alpha(_expanded(image, stored)), notes


def _expanded(image: Image.Image, stored: str) -> Image.Image:
    transparency = image.info.get("transparency")
    if image.mode == "P":
        has_alpha = transparency is not None or (image.palette and image.palette.mode == "RGBA")
        return image.convert("RGBA" if has_alpha else "RGB")
    if transparency is not None and image.mode in ("1", "L", "RGB"):
        image.info["transparency"] = _in_8_bit(transparency, stored)
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    if stored == "LA;16B":
        return image.convert("LA")  # Pillow decodes this gray as colours
    if image.mode in _ALREADY_PLAIN:
        return image
    return image.convert(_TARGETS.get(image.mode, "RGB"))


def _in_8_bit(transparency: Any, stored: str) -> Any:
    """Scale a PNG's transparent colour, given in the file's bit depth, to Pillow's 8 bits."""
    if isinstance(transparency, tuple) and ";16" in stored:
        return tuple(value >> 8 for value in transparency)
    if isinstance(transparency, int) and stored in _SMALL_GRAY_SCALES:
        return min(transparency * _SMALL_GRAY_SCALES[stored], _EIGHT_BITS)
    return transparency


def _without_opaque_alpha(image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    lowest = image.getextrema()[-1][0]  # type: ignore[index]  # with alpha there are several channels
    return image.convert(image.mode[:-1]) if lowest == _EIGHT_BITS else image


def _native_wide(
    image: Image.Image, stored: str, notes: tuple[str, ...]
) -> tuple[Image.Image, tuple[str, ...]]:
    if stored == "I;12":
        import numpy as np

        # Unscaled, the picture would be nearly black; repeated high bits fill the range.
        samples = np.asarray(image)
        return Image.fromarray(samples << 4 | samples >> 8), (*notes, "12 bits scaled to 16")
    if image.mode != WIDE:
        import numpy as np

        return Image.fromarray(np.asarray(image).astype(np.uint16)), notes
    return image, notes


def wide_from_numbers(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert 32-bit integers (mode I) or floats (mode F) to a grayscale picture.

    Such files carry measurements and do not define black and white. Their finite values decide:
    integers within 0..255 are 8-bit levels, and within 0..65535 16-bit levels, unchanged; floats
    within 0..1 are shares of white; everything else is stretched from its minimum and maximum to
    0..65535. NaN becomes black, infinities the nearest finite value.

    Returns:
        Mode L (integers within 0..255) or I;16, and a note that names the rule applied.
    """
    import numpy as np

    values = np.asarray(image)
    lowest, highest = _finite_range(values)
    is_integer = image.mode == "I"
    if is_integer and lowest >= 0 and highest <= _EIGHT_BITS:
        return Image.fromarray(values.astype(np.uint8)), "32-bit integers taken as 8-bit levels"
    if is_integer and lowest >= 0 and highest <= _SIXTEEN_BITS:
        return Image.fromarray(values.astype(np.uint16)), "32-bit integers taken as 16-bit levels"
    if not is_integer and lowest >= 0 and highest <= 1:
        return _stretched(values, 0.0, 1.0), "floats from 0 to 1 taken as shares of white"
    note = f"values from {lowest:g} to {highest:g} stretched to 16 bits"
    return _stretched(values, lowest, highest), note


def _bands(values: "NDArray[Any]") -> "Iterator[tuple[slice, NDArray[np.float64]]]":
    """Iterate over bands of rows as float64, so that the array is never held in it at once."""
    for top in range(0, values.shape[0], _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        yield rows, values[rows].astype("float64")


def _finite_range(values: "NDArray[Any]") -> tuple[float, float]:
    """The minimum and maximum finite value; 0 and 0 if there is none."""
    import numpy as np

    lowest, highest = np.inf, -np.inf
    for _, band in _bands(values):
        is_finite = np.isfinite(band)
        lowest = min(lowest, band.min(where=is_finite, initial=np.inf))
        highest = max(highest, band.max(where=is_finite, initial=-np.inf))
    return (float(lowest), float(highest)) if lowest <= highest else (0.0, 0.0)


def _stretched(values: "NDArray[Any]", black: float, white: float) -> Image.Image:
    """Map `black`..`white` to 0..65535, rounded; NaN becomes 0, and infinities the ends."""
    import numpy as np

    levels = np.zeros(values.shape, dtype=np.uint16)
    # Halved before subtracting, since the difference of two finite floats can be infinite.
    span = white / 2 - black / 2
    for rows, band in _bands(values if span else values[:0]):
        shares = (np.nan_to_num(band, nan=black, posinf=white, neginf=black) / 2 - black / 2) / span
        levels[rows] = np.clip(np.rint(shares * _SIXTEEN_BITS), 0, _SIXTEEN_BITS)
    return Image.fromarray(levels)


def narrow(image: Image.Image) -> Image.Image:
    """Reduce a 16-bit grayscale picture to 8 bits, rounded (PNG, section 13.12: v * 255 / 65535).

    Returns:
        Mode L, or LA if `info` has an alpha channel or a transparent level.
    """
    import numpy as np

    levels = np.asarray(image).astype(np.uint32)
    gray = Image.fromarray(((levels * 255 + 32895) >> 16).astype(np.uint8))
    if ALPHA in image.info:
        return Image.merge("LA", (gray, narrow(image.info[ALPHA])))
    transparent = image.info.get("transparency")
    if transparent is None:
        return gray
    alpha = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, alpha))
