"""The outputs of a photograph, one small function each, and the registry that names them.

A further output is one function and one entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from imgflow.images.encoding import (
    LONGEST_JPEG_SIDE,
    Encoded,
    encode,
    flattened,
    for_jpeg,
    has_alpha,
)
from imgflow.images.modes import WIDE
from imgflow.images.photo import Photo
from imgflow.images.recipe import PhotoRecipe
from imgflow.images.watermark import watermarked

_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "HEIF"})


@dataclass(frozen=True)
class PhotoOutput:
    """One kind of output.

    Attributes:
        name: Also its asset key, its prefix in the store and its route.
        version: Bumped by hand when the function makes other bytes of the same photograph.
        recipe_fields: Names of all fields of `PhotoRecipe` that the function reads.
        render: Makes the output; raises `Rejected` when the picture turns out damaged.
    """

    name: str
    version: int
    recipe_fields: tuple[str, ...]
    render: Callable[[Photo, PhotoRecipe], Encoded]


def _grayscale(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The whole picture in grayscale, see `Photo.luma`.

    JPEG where the source is lossy anyway; PNG where it is not, or where JPEG would lose 16 bits or
    alpha, or cannot be so large. `recipe.grayscale_format` overrules this, except for the size.
    """
    image = photo.luma()
    is_lossy = photo.header.format in _LOSSY_FORMATS and not has_alpha(image) and image.mode != WIDE
    is_jpeg = recipe.grayscale_format == "jpeg" or (recipe.grayscale_format == "auto" and is_lossy)
    if is_jpeg and max(image.size) <= LONGEST_JPEG_SIDE:
        return encode(
            for_jpeg(image, recipe.background),
            "JPEG",
            quality=recipe.jpeg_quality,
            credit=photo.credit,
        )
    return encode(image, "PNG", quality=recipe.jpeg_quality, credit=photo.credit)


def _thumbnail(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The picture in sRGB within `recipe.thumbnail_size`, see `Photo.fitted`."""
    image = photo.fitted(recipe.thumbnail_size)
    format_name = recipe.thumbnail_format.upper()
    if format_name == "AUTO":
        format_name = "PNG" if has_alpha(image) else "JPEG"
    if format_name == "JPEG":
        image = flattened(image, recipe.background)
    return encode(image, format_name, quality=recipe.jpeg_quality, credit=photo.credit)


def _proof(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The picture within `recipe.proof_size` under a watermark: JPEG, or PNG where it has alpha."""
    image = photo.fitted(recipe.proof_size)
    image = image.convert("RGBA" if has_alpha(image) else "RGB")
    marked = watermarked(image, recipe.watermark_text or "")
    format_name = "PNG" if has_alpha(marked) else "JPEG"
    return encode(marked, format_name, quality=recipe.jpeg_quality, credit=photo.credit)


PHOTO_OUTPUTS: dict[str, PhotoOutput] = {
    output.name: output
    for output in (
        PhotoOutput("grayscale", 1, ("grayscale_format", "jpeg_quality", "background"), _grayscale),
        PhotoOutput(
            "thumbnail",
            1,
            ("thumbnail_size", "thumbnail_format", "jpeg_quality", "background"),
            _thumbnail,
        ),
        PhotoOutput("proof", 1, ("watermark_text", "proof_size", "jpeg_quality"), _proof),
    )
}
"""All outputs by name, in the order in which they are shown."""


def enabled_outputs(recipe: PhotoRecipe) -> tuple[str, ...]:
    """Names of the outputs that a recipe makes; proofs only with a watermark text."""
    has_watermark = bool((recipe.watermark_text or "").strip())
    return tuple(name for name in PHOTO_OUTPUTS if name != "proof" or has_watermark)
