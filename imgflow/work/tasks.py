"""What goes to a pool process and what comes back from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imgflow.catalog.records import Content, Verdict, kind_of
from imgflow.depth.limits import DepthLimits, processor_seconds
from imgflow.errors import Trouble
from imgflow.images.formats.decoding import Limits
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.store.config import StoreConfig
from imgflow.store.objects import SourceObject

if TYPE_CHECKING:
    from imgflow.depth.depth_recipe import DepthRecipe

OutputRecord = Mapping[str, Any]


def aws_variables() -> dict[str, str]:
    """The variables of this process that say how to reach S3."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker needs to know, sent to it once when it starts."""

    stores: StoreConfig
    database_url: str = field(repr=False)
    source: str
    photo_recipe: PhotoRecipe
    photo_limits: Limits
    depth_recipe: DepthRecipe
    decode_seconds: float
    depth_seconds: float
    depth_limits: DepthLimits = field(default_factory=DepthLimits)
    # Workers are forked from a server process that keeps the environment of its own start.
    variables: Mapping[str, str] = field(default_factory=aws_variables, repr=False)

    def seconds_of(self, task: Task) -> float:
        """Processor time that one image may take."""
        if kind_of(task.upload.key) == "photo":
            return self.decode_seconds
        return processor_seconds(task.upload.size, self.depth_seconds)


@dataclass(frozen=True)
class Task:
    """One upload to be processed.

    Attributes:
        image_id: its row.
        upload: as it was announced.
        run_id: of the Dagster run.
        wanted: outputs that are made when the content is as before; all are when it changed.
        enabled: all outputs of its family, with the fingerprint of their recipe.
        own: what was last made of the image itself.
        twins: other contents of the same size in bytes; one of them may be the same.
        is_known: this very upload was processed before, so that `own` is its content.
    """

    image_id: int
    upload: SourceObject
    run_id: str
    wanted: frozenset[str]
    enabled: Mapping[str, str]
    own: Content | None = None
    twins: tuple[Content, ...] = ()
    is_known: bool = False


@dataclass(frozen=True)
class Failure:
    """What was raised that nobody expected, in words, since not every exception can travel.

    Attributes:
        reason: one sentence for a person, with the exception's type.
        trace: for the log.
    """

    reason: str
    trace: str


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        verdict: to be written to the row; None when trouble outside kept it from being processed.
        trouble: in words, when there was some.
        trouble_code: which kind of trouble.
        is_outdated: the upload is not the announced one any more.
        failure: when something unexpected was raised; the pool decides what it means.
        made: names of the outputs that were made anew.
        bytes_read: of the source object.
        pictures: small copies as text of what was made anew, by output; `metadata` has one too.
        milliseconds: by step: `read`, `process`, `write`.
        began: when work on it began, in seconds since 1970; 0 when no worker answered.
        worker: process id of the worker that answered.
    """

    verdict: Verdict | None = None
    trouble: str | None = None
    trouble_code: str = Trouble.code
    is_outdated: bool = False
    failure: Failure | None = None
    made: tuple[str, ...] = ()
    bytes_read: int = 0
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    worker: int = 0
    pictures: Mapping[str, str] = field(default_factory=dict)
