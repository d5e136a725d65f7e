"""The one call that workers make: an upload's bytes to its facts and all asked outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from imgflow.errors import OutputFailed, Rejected, Trouble
from imgflow.images.encoding import Encoded
from imgflow.images.formats.decoding import Limits, open_photo
from imgflow.images.formats.rejections import too_large
from imgflow.images.formats.sniffing import sniff
from imgflow.images.outputs import PHOTO_OUTPUTS, PhotoOutput, find_output
from imgflow.images.photo import Photo, PhotoFacts
from imgflow.images.photo_recipe import PhotoRecipe

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
        Rejected: The file is no acceptable photograph; see `imgflow.images.formats.rejections` for the codes.
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
