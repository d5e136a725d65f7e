"""ICC profiles: recognises sRGB and converts everything else to it, 8 bits a channel.

The same for 16 bits a channel is in `imgflow.images.wide`.
"""

import io
import struct
from functools import lru_cache

from PIL import Image, ImageCms

_SPACES = {b"RGB ": ("RGB", "RGBA"), b"GRAY": ("L",), b"CMYK": ("CMYK",)}
D50_TO_D65_SRGB = (
    (0.4361, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)
"""sRGB primaries as XYZ relative to D50 (IEC 61966-2-1, Bradford-adapted as ICC.1 requires)."""
_PRIMARY_TOLERANCE = 0.0025  # sRGB profiles differ by 0.001 between makers; Display P3 by 0.05
_CURVE_TOLERANCE = 0.006  # 1.5 of 255 levels; a plain gamma of 2.2 is 0.0085 away
_CURVE_PROBES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9)
_HEADER_BYTES = 132
_BOX_HEADER_BYTES = 8


@lru_cache(maxsize=32)
def is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile describes sRGB, judged by its primaries and curves.

    Its name is not trusted. A profile with lookup tables never counts as sRGB.

    Args:
        profile: ICC profile, possibly damaged.
    """
    try:
        tags = tag_table(profile)
        if profile[16:20] != b"RGB " or b"A2B0" in tags or b"A2B1" in tags:
            return False
        for name, primary in zip((b"r", b"g", b"b"), D50_TO_D65_SRGB, strict=True):
            found = struct.unpack_from(">3i", tags[name + b"XYZ"], 8)
            if any(
                abs(value / 65536 - wanted) > _PRIMARY_TOLERANCE
                for value, wanted in zip(found, primary, strict=True)
            ):
                return False
            if not _is_srgb_curve(tags[name + b"TRC"]):
                return False
    except (struct.error, KeyError, IndexError, ValueError, OverflowError):
        return False
    return True


def tag_table(profile: bytes) -> dict[bytes, bytes]:
    """The tagged elements of a profile (ICC.1:2010, 7.3)."""
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > (len(profile) - _HEADER_BYTES) // 12:
        raise ValueError("more tags than the profile has room for")
    tags = {}
    for index in range(count):
        name, start, size = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 12 * index)
        tags[name] = profile[start : start + size]
    return tags


def _srgb_to_linear(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 - IEC 61966-2-1


def _is_srgb_curve(element: bytes) -> bool:
    """Compare a `curv` or `para` element with sRGB at a few points (ICC.1:2010, 10.5, 10.15)."""
    if element[:4] == b"para":
        (kind,) = struct.unpack_from(">H", element, 8)
        if kind != 3:  # noqa: PLR2004 - the form with a linear part, which sRGB has
            return False
        gamma, a, b, c, d = (value / 65536 for value in struct.unpack_from(">5i", element, 12))
        points = [(a * x + b) ** gamma if x >= d else c * x for x in _CURVE_PROBES]
    elif element[:4] == b"curv":
        (count,) = struct.unpack_from(">I", element, 8)
        if count < 16:  # noqa: PLR2004 - identity, plain gamma, or too coarse to be sRGB
            return False
        table = struct.unpack_from(f">{count}H", element, 12)
        points = [table[round(x * (count - 1))] / 65535 for x in _CURVE_PROBES]
        probes = [round(x * (count - 1)) / (count - 1) for x in _CURVE_PROBES]
        return all(
            abs(point - _srgb_to_linear(x)) < _CURVE_TOLERANCE
            for point, x in zip(points, probes, strict=True)
        )
    else:
        return False
    return all(
        not isinstance(point, complex) and abs(point - _srgb_to_linear(x)) < _CURVE_TOLERANCE
        for point, x in zip(points, _CURVE_PROBES, strict=True)
    )


def jpeg2000_profile(data: bytes) -> bytes:
    """The ICC profile in a JP2 file's boxes, which Pillow does not read; `b""` if there is none.

    ISO/IEC 15444-1, I.5.3.3: box `colr` in `jp2h`, method 2 (restricted) or 3 (any profile).
    """
    header = _boxes(data).get(b"jp2h", b"")
    specification = _boxes(header).get(b"colr", b"")
    return specification[3:] if specification[:1] in (b"\x02", b"\x03") else b""


def _boxes(data: bytes) -> dict[bytes, bytes]:
    """The first box of each type on one level; boxes after a damaged one are left out."""
    boxes: dict[bytes, bytes] = {}
    at = 0
    while at + _BOX_HEADER_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + _BOX_HEADER_BYTES]
        if size < _BOX_HEADER_BYTES or name == b"jp2c":
            break  # the codestream comes last
        boxes.setdefault(name, data[at + _BOX_HEADER_BYTES : at + size])
        at += size
    return boxes


def fits_mode(profile: bytes, mode: str) -> bool:
    """Whether the profile's colour space matches a Pillow mode, so that it can be applied."""
    return mode in _SPACES.get(profile[16:20], ())


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    # Building one takes 0.3 to 20 ms, and uploads from one camera share their profile.
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGBA" if mode == "RGBA" else "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def is_usable(profile: bytes, mode: str) -> bool:
    """Whether a transform from the profile to sRGB can be built for pictures of `mode`."""
    if not fits_mode(profile, mode):
        return False
    try:
        _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    return True


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture to sRGB, relative colorimetric with black point compensation.

    Args:
        image: Mode RGB, RGBA, L or CMYK; `is_usable` must accept the profile for this mode.
        profile: ICC profile that describes the colours of `image`.

    Returns:
        A new picture: RGBA from RGBA, with alpha unchanged; L from L; RGB otherwise.
    """
    converted = _transform(profile, image.mode).apply(image)
    return converted.convert("L") if image.mode == "L" else converted
