"""The outputs of a photograph, one small function each, and the registry that names them.

Installed packages add to it by entry points of the group `imgflow.outputs`, see
`docs/adding-an-output.md`.
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
        version: Bumped by hand when the function makes other bytes of the same photograph.
        recipe_fields: Names of all fields of `PhotoRecipe` that the function reads.
        render: Makes the output; raises `Rejected` when the picture turns out damaged.
        parameters: Settings of its own with their defaults; `IMGFLOW_OUTPUT_PARAMETERS` changes
            them, and the function gets them from `PhotoRecipe.parameters_of`.
        description: Of its asset, in one sentence.
    """

    name: str
    version: int
    recipe_fields: tuple[str, ...]
    render: Callable[[Photo, PhotoRecipe], Encoded]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    description: str = ""


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
    return encode(image, format_name, quality=recipe.thumbnail_quality, credit=photo.credit)


def _proof(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """The picture within `recipe.proof_size` under a watermark: JPEG, or PNG where it has alpha."""
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
"""imgflow's own outputs by name, in the order in which they are shown."""

ENTRY_POINTS = "imgflow.outputs"
_OTHER_ASSETS = frozenset({"source", "metadata", "original", "resized", "preview", "installed"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@cache
def installed_outputs() -> Mapping[str, PhotoOutput]:
    """The outputs of installed packages by name, looked for once in a process.

    Raises:
        SettingsError: One cannot be loaded or has a name that is not free; it names the package.
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
    except Exception as error:  # importing foreign code may raise anything; the package is named
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
    """An output by its name; packages are looked for only when it is none of imgflow's own.

    Raises:
        KeyError: There is none of that name.
    """
    return PHOTO_OUTPUTS[name] if name in PHOTO_OUTPUTS else installed_outputs()[name]


def enabled_outputs(recipe: PhotoRecipe) -> tuple[str, ...]:
    """Names of the outputs that a recipe makes: proofs only with a watermark text, all installed.

    Raises:
        SettingsError: The recipe has parameters that no output knows, or a watermark with letters
            that its font lacks.
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


# The one call that workers make: an upload's bytes to its facts and all asked outputs.


__all__ = ["PhotoFacts", "ProcessedPhoto", "process_photo"]


@dataclass(frozen=True)
class ProcessedPhoto:
    """What became of one upload.

    Attributes:
        facts: What is known of the photograph.
        outputs: The encoded outputs by name, in the order asked for.
    """

    facts: PhotoFacts
    outputs: dict[str, Encoded]


def process_photo(
    data: bytes, recipe: PhotoRecipe, limits: Limits, outputs: Sequence[str]
) -> ProcessedPhoto:
    """Make outputs of one photograph, decoding it once.

    Args:
        data: The whole file.
        recipe: How outputs are made.
        limits: What is accepted.
        outputs: Names that `find_output` knows. With none, the file is still decoded, so that the
            verdict about it does not depend on what was asked for.

    Raises:
        Rejected: The file is no acceptable photograph; the codes are in
            `imgflow.images.formats.rejections`.
        OutputFailed: An output that another package makes raised an error of its own, or gave no
            picture.
        KeyError: There is no output of a name.
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
        # Another package's code raises anything, and must not end the run of all the others.
        raise OutputFailed(f"The output {output.name!r} could not be made: {error!r}.") from error
    if not isinstance(encoded, Encoded):
        raise OutputFailed(
            f"The output {output.name!r} gave a {type(encoded).__name__}, and has to give an "
            "Encoded."
        )
    return encoded
