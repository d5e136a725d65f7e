"""A blurred thumbnail, to be shown until the real picture has loaded."""

from PIL import ImageFilter

from imgflow.images.encoding import Encoded, encode, for_jpeg
from imgflow.images.outputs import PhotoOutput
from imgflow.images.photo import Photo
from imgflow.images.photo_recipe import PhotoRecipe


def blur(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """Blur what the thumbnail shows."""
    image = for_jpeg(photo.fitted(recipe.thumbnail_size), recipe.background)
    blurred = image.filter(ImageFilter.GaussianBlur(recipe.parameters_of("blur")["radius"]))
    return encode(blurred, "JPEG", quality=recipe.jpeg_quality, credit=photo.credit)


OUTPUT = PhotoOutput(
    name="blur",
    version=1,
    recipe_fields=("thumbnail_size", "background", "jpeg_quality"),
    render=blur,
    parameters={"radius": 8.0},
    description="The thumbnail, blurred.",
)
