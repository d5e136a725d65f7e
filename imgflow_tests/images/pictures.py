"""Pictures made for tests, and what outputs look like when they are opened again."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from imgflow.images.encoding import Encoded
from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import ProcessedPhoto, process_photo
from imgflow.images.photo_recipe import PhotoRecipe

RECIPE = PhotoRecipe()
LIMITS = Limits()


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    if format_name == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def process(data: bytes, recipe: PhotoRecipe = RECIPE, limits: Limits = LIMITS) -> ProcessedPhoto:
    return process_photo(data, recipe, limits, ("grayscale", "thumbnail"))


def opened(output: Encoded) -> Image.Image:
    image = Image.open(io.BytesIO(output.data))
    image.load()
    return image


def pixels(output: Encoded) -> np.ndarray:
    return np.asarray(opened(output))


def gray_of(data: bytes) -> np.ndarray:
    return pixels(process(data).outputs["grayscale"])


def luma_reference(rgb: np.ndarray) -> np.ndarray:
    """BT.601 in 16-bit fixed point, written anew so that it is not Pillow checking Pillow."""
    r, g, b = (rgb[..., channel].astype(np.int64) for channel in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)


def scene(width: int = 96, height: int = 64, seed: int = 1) -> Image.Image:
    """A smooth colourful picture without symmetry, inside the RGB range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def corners(mode: str = "RGB") -> Image.Image:
    """Red, green, blue and white quarters, from the upper left in reading order; 40 x 24 pixels."""
    image = Image.new("RGB", (40, 24), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 20, 12))
    image.paste((0, 255, 0), (20, 0, 40, 12))
    image.paste((0, 0, 255), (0, 12, 20, 24))
    return image.convert(mode)


def rgb_profile(primaries: str = "wide", gamma: float = 1.8) -> bytes:
    """An RGB matrix profile of our own: Little CMS' sRGB with other columns and curves."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {
        "srgb": None,
        "wide": {  # Adobe RGB (1998), relative to D50
            b"rXYZ": (0.60974, 0.31111, 0.01947),
            b"gXYZ": (0.20528, 0.62567, 0.06087),
            b"bXYZ": (0.14919, 0.06322, 0.74457),
        },
    }[primaries]
    (count,) = struct.unpack_from(">I", profile, 128)
    for index in range(count):
        name, start, _size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if columns and name in columns:
            values = (round(value * 65536) for value in columns[name])
            struct.pack_into(">3i", profile, start + 8, *values)
        if name.endswith(b"TRC") and gamma:
            struct.pack_into(">4sIHHi", profile, start, b"para", 0, 0, 0, round(gamma * 65536))
    return bytes(profile)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
