"""16-bit grayscale from pictures with 16 bits a channel in colour, or in gray with alpha.

Pillow has no mode for such pixels and keeps only the high byte of each sample. The low bytes come
from a second decode by the same decoder with the byte order swapped, so no bit of the file is lost.
Only the luma uses both; thumbnails have 8 bits anyway. Plain 16-bit gray is in
`imgflow.images.modes`.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from imgflow.images.colour import D50_TO_D65_SRGB, tag_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLOURS = ("RGB", "RGBA", "RGBX")
GRAY_WITH_ALPHA = "LA;16B"
WIDE_COLOURS = frozenset(f"{mode};16{order}" for mode in _COLOURS for order in "LBN")
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_OPAQUE = 65535
_BAND_ROWS = 64
_IHDR = slice(12, 29)  # of a PNG: its name and 13 bytes, followed by their CRC
_PARAMETERS = (1, 3, 4, 5, 7)  # of parametric curves by kind (ICC.1:2010, 10.15)


def low_bytes(image: Image.Image) -> Image.Image:
    """Decode an opened picture of `WIDE_COLOURS` into the low byte of each sample."""
    tiles: Any = image
    tiles.tile = [tile._replace(args=_swapped(tile.args)) for tile in tiles.tile]
    image.load()
    return image


def _swapped(arguments: Any) -> Any:
    if isinstance(arguments, tuple):
        return (_swapped(arguments[0]), *arguments[1:])
    return arguments[:-1] + _OTHER_ORDER[arguments[-1]]


def as_bytes(png: bytes) -> bytes:
    """Relabel a PNG of 16-bit gray with alpha as 8-bit RGBA: a pixel has four bytes in both."""
    return _relabelled(png, depth=8, colour=6)


def _relabelled(png: bytes, *, depth: int, colour: int) -> bytes:
    header = bytearray(png[_IHDR])
    header[12:14] = bytes((depth, colour))
    return b"".join(
        (png[: _IHDR.start], header, struct.pack(">I", zlib.crc32(header)), png[_IHDR.stop + 4 :])
    )


def with_alpha(gray: Image.Image, alpha: Image.Image) -> Image.Image:
    """Pack 16-bit gray and its alpha into the bytes of RGBA, for `as_gray_with_alpha`."""
    import numpy as np

    pair = np.stack([np.asarray(gray), np.asarray(alpha)], axis=-1).astype(">u2")
    return Image.fromarray(pair.view(np.uint8))


def as_gray_with_alpha(png: bytes) -> bytes:
    """Relabel the RGBA PNG of a `with_alpha` picture as 16-bit gray with alpha."""
    return _relabelled(png, depth=16, colour=4)


def luma_of_colour(
    high: Image.Image, low: Image.Image, transparency: Any, profile: bytes
) -> tuple[Image.Image, Image.Image | None]:
    """BT.601 luma of 16-bit colours.

    Args:
        high: High bytes, mode RGB or RGBA.
        low: Low bytes, in the same mode and size.
        transparency: Transparent colour, 16 bits a channel; None if there is none.
        profile: Profile to convert from, one that `describes_light` accepts; `b""` for sRGB.

    Returns:
        Luma in mode I;16, and alpha in the same mode; None instead if everything is opaque.
    """
    import numpy as np

    width, height = high.size
    luma = np.empty((height, width), np.uint16)
    has_alpha = high.mode == "RGBA" or transparency is not None
    alpha = np.full((height, width) if has_alpha else (1, 1), _OPAQUE, np.uint16)
    convert = _to_srgb(profile) if profile else None
    for rows, pixels in _bands(high, low):
        if pixels.shape[2] > 3:  # noqa: PLR2004 - channels
            alpha[rows] = pixels[..., 3]
        elif transparency is not None:
            alpha[rows][(pixels == np.asarray(transparency)).all(axis=-1)] = 0
        colours = pixels[..., :3] if convert is None else convert(pixels[..., :3])
        red, green, blue = (colours[..., channel] for channel in range(3))
        luma[rows] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return Image.fromarray(luma), _unless_opaque(alpha)


def luma_of_gray(pairs: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split a decoded `as_bytes` picture into 16-bit gray and alpha, mode I;16 each."""
    import numpy as np

    values = np.asarray(pairs).view(">u2").astype(np.uint16)
    return Image.fromarray(np.ascontiguousarray(values[..., 0])), _unless_opaque(values[..., 1])


def _unless_opaque(alpha: "NDArray[np.uint16]") -> Image.Image | None:
    import numpy as np

    return None if alpha.min() == _OPAQUE else Image.fromarray(np.ascontiguousarray(alpha))


def _bands(high: Image.Image, low: Image.Image) -> "Iterator[tuple[slice, NDArray[np.uint32]]]":
    """Both bytes of each sample joined, in bands of rows, uint32 (rows, width, channels)."""
    import numpy as np

    width, height = high.size
    for top in range(0, height, _BAND_ROWS):
        box = (0, top, width, min(height, top + _BAND_ROWS))
        upper, lower = (np.asarray(part.crop(box)).astype(np.uint32) for part in (high, low))
        upper <<= 8
        upper |= lower
        yield slice(top, box[3]), upper


def describes_light(profile: bytes, space: bytes) -> bool:
    """Whether a profile has only curves and, in colour, a matrix: those apply to 16 bits too.

    Args:
        profile: ICC profile, possibly damaged.
        space: Colour space that it must have, `b"RGB "` or `b"GRAY"`.
    """
    import numpy as np

    try:
        tags = tag_table(profile)
        if profile[16:20] != space or b"A2B0" in tags or b"A2B1" in tags:
            return False
        if space == b"GRAY":
            return bool(np.isfinite(_curve(tags[b"kTRC"])).all())
        matrix, curves = _matrix(tags), [_curve(tags[name + b"TRC"]) for name in (b"r", b"g", b"b")]
    except (struct.error, KeyError, IndexError, ValueError, OverflowError):
        return False
    return bool(np.isfinite(matrix).all() and all(np.isfinite(curve).all() for curve in curves))


def gray_in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an I;16 picture to sRGB's curve; `describes_light` must accept the profile."""
    import numpy as np

    levels = np.rint(_encoded(_curve(tag_table(profile)[b"kTRC"])) * _OPAQUE).astype(np.uint16)
    converted = Image.fromarray(levels[np.asarray(image)])
    converted.info = dict(image.info)
    if (clear := image.info.get("transparency")) is not None:
        converted.info["transparency"] = int(levels[clear])
    return converted


def _to_srgb(profile: bytes) -> Any:
    """Make a function from a profile's 16-bit colours to sRGB's, relative colorimetric."""
    import numpy as np

    tags = tag_table(profile)
    curves = [_curve(tags[name + b"TRC"]).astype(np.float32) for name in (b"r", b"g", b"b")]
    to_srgb = np.linalg.inv(np.array(D50_TO_D65_SRGB).T) @ _matrix(tags)

    def convert(colours: "NDArray[np.uint32]") -> "NDArray[np.uint32]":
        light = np.stack([curves[channel][colours[..., channel]] for channel in range(3)], axis=-1)
        shares = _encoded(light @ to_srgb.T.astype(np.float32))
        levels: NDArray[np.uint32] = np.rint(shares * _OPAQUE).astype(np.uint32)
        return levels

    return convert


def _matrix(tags: dict[bytes, bytes]) -> "NDArray[np.float64]":
    """A 3 by 3 matrix whose columns are the primaries as XYZ relative to D50."""
    import numpy as np

    columns = [struct.unpack_from(">3i", tags[name + b"XYZ"], 8) for name in (b"r", b"g", b"b")]
    return np.array(columns, dtype=np.float64).T / 65536


def _curve(element: bytes) -> "NDArray[np.float64]":
    """Linear light, 0 to 1, of each of the 65,536 levels (ICC.1:2010, 10.5 and 10.15)."""
    import numpy as np

    x = np.linspace(0, 1, _OPAQUE + 1)
    if element[:4] == b"curv":
        (count,) = struct.unpack_from(">I", element, 8)
        table = np.array(struct.unpack_from(f">{count}H", element, 12), dtype=np.float64)
        if count == 0:
            return x
        if count == 1:
            return np.asarray(x ** (table[0] / 256))
        return np.interp(x, np.linspace(0, 1, count), table / _OPAQUE)
    if element[:4] != b"para":
        raise ValueError("a curve of unknown kind")
    (kind,) = struct.unpack_from(">H", element, 8)
    values = struct.unpack_from(f">{_PARAMETERS[kind]}i", element, 12)
    gamma, a, b, c, d, e, f = (value / 65536 for value in (*values, *(0,) * (7 - len(values))))
    if kind == 0:
        return np.asarray(x**gamma)
    knee = d if kind > 2 else -b / a if a else 0.0  # noqa: PLR2004 - the kinds with a linear part
    above = np.maximum(a * x + b, 0) ** gamma + (c if kind == 2 else e)  # noqa: PLR2004 - as above
    below = c * x + f if kind > 2 else np.full_like(x, c if kind == 2 else 0)  # noqa: PLR2004 - as above
    return np.clip(np.where(x >= knee, above, below), 0, 1)


def _encoded(light: "NDArray[Any]") -> "NDArray[Any]":
    """Apply sRGB's curve (IEC 61966-2-1) to linear light, clipped to 0 to 1."""
    import numpy as np

    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004 - of that standard
