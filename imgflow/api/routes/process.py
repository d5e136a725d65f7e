"""The route `POST /process`: a photograph by its presigned URL, answered in grayscale.

The work itself is in `imgflow.api.backend.process_now`.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from imgflow.api.backend.connections import Connected, Connections
from imgflow.api.http.bodies import json_of, read_json
from imgflow.api.http.measures import measures_of
from imgflow.api.http.problems import Refused
from imgflow.api.http.serving import whole
from imgflow.api.routes.pictures import output_body
from imgflow.api.routing import change
from imgflow.errors import Trouble

router = APIRouter(tags=["pictures"])

HEADERS = {
    "X-Imgflow-Image": "Id of its row, for `GET /images/{image}`.",
    "X-Imgflow-Width": "Pixels of the photograph, upright.",
    "X-Imgflow-Height": "Pixels of the photograph, upright.",
    "Content-Location": "Path of the grayscale image.",
}


class Wanted(BaseModel):
    """What is to be processed."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, Field(min_length=1, description="Presigned, by https unless set.")]


@change(
    router,
    "POST",
    "/process",
    problems=(
        *("invalid_parameter", "body_too_large", "url_not_allowed", "url_refused", "url_failed"),
        *("image_too_large", "image_unprocessable", "image_deleted", "not_a_photo"),
        *(
            "original_deleted",
            "output_not_made",
            "output_lost",
            "bad_key",
            "still_processing",
            "outputs_not_ours",
        ),
    ),
    response_class=Response,
    responses={
        200: {
            "description": "The grayscale image.",
            "content": {"image/jpeg": {}, "image/png": {}},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in HEADERS.items()
            },
        }
    },
    openapi_extra=json_of(Wanted),
)
async def process_url(request: Request, connections: Connected) -> Response:
    """Fetch a photograph, store its width and height, and answer it in grayscale.

    The same image again does no work, also under another signature or another URL. An object of the
    source is recognised and shares its partition and row; others are put into the source below
    `fetched/`. Only servers of `IMGFLOW_FETCH_HOSTS`, S3 and its configured endpoint are asked.
    """
    wanted = await read_json(request, Wanted)
    if connections.processing.waiting >= connections.processing.most:
        raise Trouble("Too many images are processed by URL at once.")
    connections.processing.waiting += 1
    waiting = measures_of(request).waiting
    waiting.set(connections.processing.waiting)
    try:
        # Pass the log context on: an executor's threads do not inherit it.
        work = partial(copy_context().run, _answer, connections, wanted.url)
        return await asyncio.get_running_loop().run_in_executor(
            connections.processing.threads, work
        )
    finally:
        connections.processing.waiting -= 1
        waiting.set(connections.processing.waiting)


def _answer(connections: Connections, url: str) -> Response:
    image = connections.processor.process(connections.catalog, url)
    headers = {
        "X-Imgflow-Image": str(image.id),
        "X-Imgflow-Width": str(image.width),
        "X-Imgflow-Height": str(image.height),
        "Content-Location": f"/images/{image.id}/grayscale",
    }
    try:
        return whole(output_body(connections, image, "grayscale"), headers)
    except FileNotFoundError as error:
        raise Refused("output_lost", "Materialise the image again.") from error
