"""All problems that the API answers with, each with its code, status and title, in one table.

Codes are for programs and do not change; titles and details are for people and may. Which exception
becomes which problem is in `exceptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from imgflow.errors import ImgflowError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "/problems/"


class Meaning(NamedTuple):
    """The HTTP status of a code, and its title."""

    status: int
    title: str


PROBLEMS: Mapping[str, Meaning] = {
    "not_found": Meaning(404, "The API has no such route"),
    "method_not_allowed": Meaning(405, "The route does not take this method"),
    "bad_request": Meaning(400, "The request cannot be understood"),
    "token_missing": Meaning(401, "Sign in or send a token"),
    "token_unknown": Meaning(401, "That token isn't valid"),
    "key_refused": Meaning(401, "The sign-in link was used before, or has expired"),
    "scope_missing": Meaning(403, "The token does not allow this"),
    "link_wrong": Meaning(403, "The link is not signed for this picture"),
    "link_expired": Meaning(403, "The link has expired"),
    "body_too_large": Meaning(413, "The body has more bytes than the API takes"),
    "bad_key": Meaning(422, "Nothing can be uploaded under this key"),
    "original_exists": Meaning(412, "Something was uploaded under this key before"),
    "invalid_parameter": Meaning(422, "A parameter is missing or wrong"),
    "invalid_id": Meaning(422, "An image is named by its integer id or by key:{URL-encoded key}"),
    "bad_cursor": Meaning(422, "The cursor is none that this API handed out"),
    "unknown_format": Meaning(422, "No image format has this name"),
    "image_not_found": Meaning(404, "No image has this id or key"),
    "image_deleted": Meaning(404, "The image was deleted"),
    "image_pending": Meaning(404, "The image is not processed yet"),
    "image_rejected": Meaning(404, "The image was rejected, so it has no outputs"),
    "not_a_photo": Meaning(404, "Only photographs have this output"),
    "not_a_depth_image": Meaning(404, "Only depth images have this output"),
    "output_not_enabled": Meaning(404, "This output is not enabled in the settings"),
    "output_not_made": Meaning(404, "The image was processed before this output was enabled"),
    "output_lost": Meaning(404, "The output store does not have this output any more"),
    "url_not_allowed": Meaning(422, "This URL is not fetched"),
    "url_refused": Meaning(422, "The server does not give what the URL names"),
    "url_failed": Meaning(502, "The server that the URL names did not answer well"),
    "image_too_large": Meaning(422, "The image has more bytes than are processed"),
    "image_unprocessable": Meaning(422, "The bytes cannot become an image"),
    "still_processing": Meaning(503, "The image is not processed yet"),
    "original_changed": Meaning(409, "The uploaded object was overwritten since it was listed"),
    "original_withheld": Meaning(409, "The source keeps the uploaded object back"),
    "original_deleted": Meaning(404, "The uploaded object is not in the source any more"),
    "range_not_satisfiable": Meaning(416, "The picture has no such bytes"),
    "bad_number": Meaning(422, "A bound or a range is not made of finite decimal numbers"),
    "bounds_descend": Meaning(422, "The lower bound is above the upper one"),
    "depth_outside": Meaning(422, "The depth interval lies outside the image"),
    "no_rows": Meaning(422, "The image has no row in this depth interval"),
    "no_pixels": Meaning(422, "Every pixel in this depth interval is missing"),
    "too_many_rows": Meaning(422, "The depth interval has more rows than one answer can hold"),
    "frame_too_tall": Meaning(422, "The frame is taller than its format can hold"),
    "unknown_colormap": Meaning(422, "No colour map has this name"),
    "bad_colormap": Meaning(422, "The colour map in JSON is not well formed"),
    "unknown_problem": Meaning(404, "No problem has this code"),
    "busy": Meaning(503, "Too much is being read at once"),
    "unavailable": Meaning(503, "The database or a store does not answer"),
    "outputs_not_ours": Meaning(503, "The output location belongs to another catalogue"),
    "not_ready": Meaning(503, "A part that the API needs does not answer"),
    "unexpected": Meaning(500, "The API failed"),
}
"""All codes; `GET /problems` shows this table."""


class Refused(ImgflowError):
    """A request that is answered with a problem.

    Attributes:
        code: Key of `PROBLEMS`.
        detail: One sentence about this request.
        headers: Further headers of the answer.
        members: Further members of the problem, such as `reason_code`.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.members = members


class Problem(BaseModel):
    """A problem as it is answered (RFC 9457); some codes add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="Where the code is explained: `/problems/{code}`.")]
    title: Annotated[str, Field(description="What the code means; the same for every request.")]
    status: Annotated[int, Field(description="The HTTP status, once more.")]
    detail: Annotated[str, Field(description="One sentence about this request.")]
    instance: Annotated[str, Field(description="The path that was asked for.")]
    code: Annotated[str, Field(description="For programs; `GET /problems` lists all.")]
    request_id: Annotated[str, Field(description="As in the header X-Request-ID and in the log.")]


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Declare for OpenAPI which problems a route may answer with, besides those of every route."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, "busy", "unavailable", "unexpected"):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes_of),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, codes_of in by_status.items()
    }
