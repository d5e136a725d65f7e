"""Hands each thumbnail to a model behind HTTP, and keeps its score as metadata."""

import json
from urllib.request import Request, urlopen

from imgflow.images.encoding import Encoded, encode, for_jpeg
from imgflow.images.outputs import PhotoOutput
from imgflow.images.photo import Photo
from imgflow.images.photo_recipe import PhotoRecipe


def score(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """Send a JPEG and read `{"score": number}`; a model that is away is asked again later."""
    model = recipe.parameters_of("score")
    image = for_jpeg(photo.fitted((model["side"], model["side"])), recipe.background)
    jpeg = encode(image, "JPEG", quality=90, credit=b"")
    question = Request(model["url"], jpeg.data, {"Content-Type": jpeg.media_type})
    with urlopen(question, timeout=30) as answer:
        found = {"score": float(json.load(answer)["score"])}
    body = json.dumps(found).encode()
    return Encoded(body, "application/json", ".json", jpeg.width, jpeg.height, jpeg.mode, found)


OUTPUT = PhotoOutput(
    "score", 1, ("background",), score, {"url": "", "side": 224}, "What a model says of it."
)
