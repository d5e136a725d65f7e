"""The photograph between two colours, as in a print with one ink."""

from PIL import ImageOps

from imgflow.images.encoding import Encoded, encode, for_jpeg
from imgflow.images.outputs import PhotoOutput
from imgflow.images.photo import Photo
from imgflow.images.photo_recipe import PhotoRecipe


def colorize(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """Give the gray levels new colours, at full size."""
    colours = recipe.parameters_of("colorize")
    gray = for_jpeg(photo.luma(), recipe.background)
    inked = ImageOps.colorize(gray, black=colours["dark"], white=colours["light"])
    return encode(inked, "PNG", quality=recipe.jpeg_quality, credit=photo.credit)


OUTPUT = PhotoOutput(
    name="colorize",
    version=1,
    recipe_fields=("background",),
    render=colorize,
    parameters={"dark": "#2b1d0e", "light": "#fff4dc"},
    description="The gray levels in sepia, or between any two colours.",
)
