"""The JSON models of rows of the table `images`.

The same rows for the gallery's templates are in `imgflow.api.gallery.presenting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from imgflow.advice import advice
from imgflow.api.http.serving import version_of
from imgflow.catalog.records import Image, Kind, State


class OutputItem(BaseModel):
    """An output of an image."""

    url: Annotated[
        str,
        Field(description="Path below the API. Pictures name their version: kept by caches."),
    ]
    media_type: str
    size: Annotated[int, Field(description="Bytes as stored.")]
    width: Annotated[int, Field(description="Pixels.")]
    height: Annotated[int, Field(description="Pixels.")]
    sha256: Annotated[str, Field(description="Identifies its content; the ETag of pictures.")]


class ImageItem(BaseModel):
    """An image: what was uploaded, and what became of it."""

    id: int
    key: Annotated[str, Field(description="Object key below the source's prefix.")]
    kind: Kind
    state: Annotated[
        State,
        Field(
            description="`pending` images may still have the outputs of the upload before the "
            "one that waits."
        ),
    ]
    width: Annotated[int | None, Field(description="Pixels, upright; columns of a depth image.")]
    height: Annotated[int | None, Field(description="Pixels, upright; rows of a depth image.")]
    bytes: Annotated[int | None, Field(description="Size of the uploaded object.")]
    media_type: str | None
    mode: Annotated[str | None, Field(description="Pixel mode as uploaded.")]
    sha256: Annotated[str | None, Field(description="Of the uploaded bytes.")]
    created_at: datetime
    updated_at: datetime
    recipe: Annotated[
        str | None, Field(description="Fingerprint of all settings and code that made the outputs.")
    ]
    run_id: Annotated[str | None, Field(description="Dagster run that processed it last.")]
    trace_id: Annotated[
        str, Field(description="By which its newest upload is found in logs and traces.")
    ]
    reason: Annotated[
        str | None, Field(description="Why it is rejected, or what last kept it from being done.")
    ]
    reason_code: Annotated[str | None, Field(description="The reason for programs.")]
    advice: Annotated[
        str | None, Field(description="What a person does about it; null when there is no reason.")
    ]
    facts: Annotated[
        dict[str, Any],
        Field(description="What else is known: format, frames, orientation, depth bounds, notes."),
    ]
    outputs: Annotated[dict[str, OutputItem], Field(description="By name.")]
    original_url: Annotated[str | None, Field(description="Path of the uploaded object.")]


class ImagePage(BaseModel):
    """A part of the list."""

    items: list[ImageItem]
    next: Annotated[
        str | None, Field(description="Cursor of the next page; null when there is none.")
    ]


class DeletedItem(BaseModel):
    """What a deletion did, or would do."""

    images: Annotated[int, Field(description="1, or 0 when it was deleted before.")]
    outputs: Annotated[int, Field(description="Pictures and arrays.")]
    objects: Annotated[int, Field(description="Uploaded objects.")]
    dry_run: Annotated[bool, Field(description="Nothing was changed.")]


def item_of(image: Image) -> ImageItem:
    """Return the JSON model of a row."""
    return ImageItem(
        id=image.id,
        key=image.key,
        kind=image.kind,
        state=image.state,
        width=image.width,
        height=image.height,
        bytes=image.size,
        media_type=image.media_type,
        mode=image.mode,
        sha256=image.sha256,
        created_at=image.created_at,
        updated_at=image.updated_at,
        recipe=image.recipe,
        run_id=image.run_id,
        trace_id=image.trace_id,
        reason=image.reason,
        reason_code=image.reason_code,
        advice=advice(image.reason_code) if image.reason_code else None,
        facts=dict(image.facts),
        outputs={name: _output(image, name, record) for name, record in image.outputs.items()},
        original_url=None if image.state == "deleted" else f"/images/{image.id}/original",
    )


def _output(image: Image, name: str, record: Mapping[str, Any]) -> OutputItem:
    # The array is in the database; the frame of the entire image gives it as numbers.
    version = version_of(record["sha256"])
    url = (
        f"/image/{image.id}?format=npy"
        if name == "resized"
        else f"/images/{image.id}/{name}?v={version}"
    )
    return OutputItem(
        url=url,
        media_type=record["media_type"],
        size=record["size"],
        width=record["width"],
        height=record["height"],
        sha256=record["sha256"],
    )
