"""The outputs of a photograph, the registry that names them, and the call that makes them.

Each output is one small function. Installed packages add theirs through entry points of the group
`imgflow.outputs`, see `docs/adding-an-output.md`. Settings that outputs depend on are in
`imgflow.images.photo_recipe`; the outputs of depth images are in `imgflow.depth`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from imgflow.errors import OutputFailed, Rejected, SettingsError, Trouble
from imgflow.images.encoding import (
    LONGEST_JPEG_SIDE,
    Encoded,
    encode,
    flattened,
    for_jpeg,
    has_alpha,
)
from imgflow.images.formats.decoding import Limits, open_photo
from imgflow.images.formats.rejections import too_large
from imgflow.images.formats.sniffing import sniff
from imgflow.images.modes import WIDE
from imgflow.images.photo import Photo, PhotoFacts
from imgflow.images.photo_recipe import Parameter, PhotoRecipe
from imgflow.images.watermark import Typeface, check_letters, watermarked

_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "HEIF"})


@dataclass(frozen=True)
class PhotoOutput:
    """One kind of output.

    Attributes:
        name: Also its asset key, its prefix in the store and its route.
        version: Bump it by hand when the function changes the bytes it makes of a photograph.
        recipe_fields: Names of all fields of `PhotoRecipe` that the function reads.
        render: Makes the output; raises `Rejected` if the picture turns out to be damaged.
        parameters: Defaults of the output's own settings. `IMGFLOW_OUTPUT_PARAMETERS` overrides
            them, and the function reads them from `PhotoRecipe.parameters_of`.
        description: Describes the asset in one sentence.
    """

    name: str
    version: int
    recipe_fields: tuple[str, ...]
    render: Callable[[Photo, PhotoRecipe], Encoded]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    description: str = ""


def _grayscale(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The full-size picture in grayscale, see `Photo.luma`.

    JPEG if the source is lossy anyway; PNG if it is not, or if JPEG would lose 16 bits or alpha, or
    cannot be that large. `recipe.grayscale_format` overrides this, except for the size.
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
    """The picture in sRGB, fitted to `recipe.thumbnail_size`; see `Photo.fitted`."""
    image = photo.fitted(recipe.thumbnail_size)
    format_name = recipe.thumbnail_format.upper()
    if format_name == "AUTO":
        format_name = "PNG" if has_alpha(image) else "JPEG"
    if format_name == "JPEG":
        image = flattened(image, recipe.background)
    return encode(image, format_name, quality=recipe.thumbnail_quality, credit=photo.credit)


def _proof(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The picture fitted to `recipe.proof_size` and watermarked: JPEG, or PNG if it has alpha."""
    image = photo.fitted(recipe.proof_size)
    image = image.convert("RGBA" if has_alpha(image) else "RGB")
    marked = watermarked(image, recipe.watermark_text or "", _typeface(recipe))
    format_name = "PNG" if has_alpha(marked) else "JPEG"
    return encode(marked, format_name, quality=recipe.jpeg_quality, credit=photo.credit)


def _typeface(recipe: PhotoRecipe) -> Typeface:
    return Typeface(recipe.watermark_font, recipe.watermark_font_sha256)


PHOTO_OUTPUTS: dict[str, PhotoOutput] = {
    output.name: output
    for output in (
        PhotoOutput("grayscale", 2, ("grayscale_format", "jpeg_quality", "background"), _grayscale),
        PhotoOutput(
            "thumbnail",
            2,
            ("thumbnail_size", "thumbnail_format", "thumbnail_quality", "background"),
            _thumbnail,
        ),
        PhotoOutput(
            "proof",
            1,
            ("watermark_text", "watermark_font_sha256", "proof_size", "jpeg_quality"),
            _proof,
        ),
    )
}
"""Built-in outputs by name, in display order."""

ENTRY_POINTS = "imgflow.outputs"
_OTHER_ASSETS = frozenset({"source", "metadata", "original", "resized", "preview", "installed"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@cache
def installed_outputs() -> Mapping[str, PhotoOutput]:
    """The outputs of installed packages by name, discovered once in a process.

    Raises:
        SettingsError: One cannot be loaded, or its name is invalid or taken; names the package.
    """
    found: dict[str, PhotoOutput] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        output = _loaded(entry)
        if output.name in {*found, *PHOTO_OUTPUTS, *_OTHER_ASSETS} or not _NAME.fullmatch(
            output.name
        ):
            raise SettingsError(
                f"The output {output.name!r} of {_origin(entry)} needs another name: of at most 40 "
                "small letters, digits and _, and not taken."
            )
        found[output.name] = output
    return found


def _loaded(entry: EntryPoint) -> PhotoOutput:
    try:
        output = entry.load()
    except Exception as error:  # importing foreign code may raise anything
        raise SettingsError(
            f"The output {entry.name!r} of {_origin(entry)} cannot be loaded ({error!r}). Fix or "
            "uninstall the package."
        ) from error
    if not isinstance(output, PhotoOutput):
        raise SettingsError(
            f"The output {entry.name!r} of {_origin(entry)} is a {type(output).__name__}, and has "
            "to be a PhotoOutput."
        )
    return output


def _origin(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name!r}" if entry.dist else "an installed package"


def find_output(name: str) -> PhotoOutput:
    """Find an output by name; installed packages are searched only if it is not built in.

    Raises:
        KeyError: No output has this name.
    """
    return PHOTO_OUTPUTS[name] if name in PHOTO_OUTPUTS else installed_outputs()[name]


def enabled_outputs(recipe: PhotoRecipe) -> tuple[str, ...]:
    """Names of the outputs that a recipe makes; proofs need a watermark text.

    Raises:
        SettingsError: The recipe has parameters that no output knows, or its watermark has letters
            that the font lacks.
    """
    installed = installed_outputs()
    for name, parameter, _ in recipe.parameters:
        if name not in installed or parameter not in installed[name].parameters:
            known = ", ".join(f"{o.name}.{p}" for o in installed.values() for p in o.parameters)
            raise SettingsError(
                f"IMGFLOW_OUTPUT_PARAMETERS: no installed output has the parameter "
                f"{name}.{parameter}; known are: {known or 'none'}."
            )
    for name in installed:
        recipe.parameters_of(name)
    has_watermark = bool((recipe.watermark_text or "").strip())
    if has_watermark:
        check_letters(recipe.watermark_text or "", _typeface(recipe))
    own = (name for name in PHOTO_OUTPUTS if name != "proof" or has_watermark)
    return (*own, *installed)


# Processing: the one call that workers make, from an upload's bytes to its facts and outputs.


__all__ = ["PhotoFacts", "ProcessedPhoto", "process_photo"]


@dataclass(frozen=True)
class ProcessedPhoto:
    """The result of processing one upload.

    Attributes:
        outputs: Encoded outputs by name, in the requested order.
    """

    facts: PhotoFacts
    outputs: dict[str, Encoded]


def process_photo(
    data: bytes, recipe: PhotoRecipe, limits: Limits, outputs: Sequence[str]
) -> ProcessedPhoto:
    """Make outputs of one photograph, decoding it once.

    Args:
        data: Complete file.
        recipe: Decides how the outputs are made.
        limits: Photographs beyond these are rejected.
        outputs: Names that `find_output` knows. Even if empty, the file is decoded, so that its
            acceptance does not depend on the outputs requested.

    Raises:
        Rejected: The photograph is not accepted; codes are in `imgflow.images.formats.rejections`.
        OutputFailed: Another package's output raised an error of its own, or returned something
            other than an `Encoded`.
        KeyError: No output has one of these names.
    """
    asked = [find_output(name) for name in outputs]
    try:
        photo = open_photo(data, limits)
        made = {output.name: _rendered(output, photo, recipe) for output in asked}
        photo.check()
    except MemoryError as error:
        raise too_large(sniff(data).name) from error
    return ProcessedPhoto(photo.facts, made)


def _rendered(output: PhotoOutput, photo: Photo, recipe: PhotoRecipe) -> Encoded:
    if output.name in PHOTO_OUTPUTS:
        return output.render(photo, recipe)
    try:
        encoded = output.render(photo, recipe)
    except (Rejected, Trouble, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        # Another package's code may raise anything, and must not fail the run for the others.
        raise OutputFailed(f"The output {output.name!r} could not be made: {error!r}.") from error
    if not isinstance(encoded, Encoded):
        raise OutputFailed(
            f"The output {output.name!r} gave a {type(encoded).__name__}, and has to give an "
            "Encoded."
        )
    return encoded
