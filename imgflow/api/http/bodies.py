"""Reads request bodies, within limits, and only after the caller's access has been checked.

FastAPI would read the body of a parameter before that check. Bodies of answers are in `serving`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from imgflow.api.http.problems import Refused

Model = TypeVar("Model", bound=BaseModel)

MOST_JSON_BYTES = 64 * 1024
PIECE_BYTES = 2**20
# The open files of this process; opening one here gives an independent file position.
OPEN_FILES = Path("/proc/self/fd")


def json_of(model: type[BaseModel]) -> dict[str, Any]:
    """Declare a JSON body for OpenAPI."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""Declaration of a body of arbitrary bytes for OpenAPI."""


async def read_json(request: Request, model: type[Model]) -> Model:
    """Read a small JSON body.

    Raises:
        Refused: The body is too large, not JSON, or does not fit the model. The error does not
            quote its content.
    """
    body = b""
    async for piece in pieces(request, MOST_JSON_BYTES):
        body += piece
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = [
            {
                "parameter": ".".join(str(part) for part in fault["loc"]) or "body",
                "message": fault["msg"],
            }
            for fault in error.errors(include_input=False, include_context=False)
        ]
        detail = " ".join(f"{fault['parameter']}: {fault['message']}." for fault in faults)
        raise Refused("invalid_parameter", detail, errors=faults) from None


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the body in pieces, as they arrive.

    Raises:
        Refused: The body, or its header Content-Length, exceeds the maximum.
    """
    told = request.headers.get("Content-Length", "")
    if told.isdecimal() and int(told[:20]) > most:
        raise _too_large(most)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise _too_large(most)
        yield piece


@dataclass(frozen=True)
class Received:
    """A body in a file.

    Attributes:
        file: Path of the bytes; valid only within the `with` block.
        size: Number of bytes.
        sha256: Hash of the bytes, in hex.
    """

    file: Path
    size: int
    sha256: str


@asynccontextmanager
async def received(request: Request, most: int) -> AsyncIterator[Received]:
    """Write the body to a temporary file, piece by piece.

    Raises:
        Refused: The body exceeds the maximum.
    """
    with nameless_file() as (opened, file):
        digest = hashlib.sha256()
        size = 0

        def keep(piece: bytes) -> None:
            opened.write(piece)
            digest.update(piece)

        waiting = bytearray()
        async for piece in pieces(request, most):
            size += len(piece)
            waiting += piece
            if len(waiting) >= PIECE_BYTES:
                await run_in_threadpool(keep, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(keep, bytes(waiting))
        await run_in_threadpool(opened.flush)
        yield Received(file, size, digest.hexdigest())


@contextmanager
def nameless_file() -> Iterator[tuple[IO[bytes], Path]]:
    """Make a temporary file that vanishes with this process, however it ends.

    Yields:
        The file, and a path by which it can be opened meanwhile. On systems without `/proc`, it is
        an ordinary temporary file.
    """
    if OPEN_FILES.is_dir():
        with tempfile.TemporaryFile(prefix="imgflow-") as opened:
            yield opened, OPEN_FILES / str(opened.fileno())
    else:
        with tempfile.NamedTemporaryFile(prefix="imgflow-") as opened:
            yield opened, Path(opened.name)


def _too_large(most: int) -> Refused:
    # Nobody reads the rest of the body, so the connection cannot be reused.
    return Refused("body_too_large", f"At most {most:,} bytes.", headers={"Connection": "close"})
