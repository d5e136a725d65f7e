"""A copy of every upload in another bucket, named by its content; the output is the receipt."""

import hashlib
import json

from imgflow.images.encoding import Encoded
from imgflow.images.outputs import PhotoOutput
from imgflow.images.photo import Photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.store.location import parse_location
from imgflow.store.output_store import OutputStore


def backup(photo: Photo, recipe: PhotoRecipe) -> Encoded:
    """Write the bytes; the same content has the same name, so a repetition does no harm."""
    url = recipe.parameters_of("backup")["url"]
    store = OutputStore(parse_location(url, setting="the parameter backup.url"))
    name = hashlib.sha256(photo.data).hexdigest()
    if not store.exists(name):
        store.put(name, photo.data, photo.header.media_type)
    receipt = {"copy": f"{store.location.url}{name}"}
    body = json.dumps(receipt).encode()
    return Encoded(body, "application/json", ".json", *photo.size, photo.header.mode, receipt)


OUTPUT = PhotoOutput(
    "backup", 1, (), backup, {"url": ""}, "A copy of the upload in another bucket."
)
