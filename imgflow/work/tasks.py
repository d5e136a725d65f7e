"""What goes to a pool process, what comes back, and how the result of an upload is composed.

Also the records in which a run collects the results of its batch. The functions here do no input
or output; the work is in `photographs` and `depth_images`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from imgflow.catalog.records import Content, Image, Verdict, kind_of, recipe_fingerprint
from imgflow.depth.limits import DepthLimits, processor_seconds
from imgflow.errors import OutputFailed, Trouble, Withheld
from imgflow.images.formats.decoding import Limits
from imgflow.images.formats.sniffing import suffix_mismatch
from imgflow.images.outputs import PhotoFacts
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.store.config import StoreConfig
from imgflow.store.objects import SourceObject

if TYPE_CHECKING:
    from imgflow.depth.depth_recipe import DepthRecipe

OutputRecord = Mapping[str, Any]


def aws_variables() -> dict[str, str]:
    """This process's environment variables that say how to reach S3."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@dataclass(frozen=True)
class WorkerConfig:
    """Everything a worker needs to know; sent once, when it starts."""

    stores: StoreConfig
    database_url: str = field(repr=False)
    source: str
    photo_recipe: PhotoRecipe
    photo_limits: Limits
    depth_recipe: DepthRecipe
    decode_seconds: float
    depth_seconds: float
    depth_limits: DepthLimits = field(default_factory=DepthLimits)
    # Workers are forked from a server process, whose environment is that of its own start.
    variables: Mapping[str, str] = field(default_factory=aws_variables, repr=False)

    def seconds_of(self, task: Task) -> float:
        """Processor time that the image may take, in seconds."""
        if kind_of(task.upload.key) == "photo":
            return self.decode_seconds
        return processor_seconds(task.upload.size, self.depth_seconds)


@dataclass(frozen=True)
class Task:
    """One upload to be processed.

    Attributes:
        upload: The upload that the catalogue announced; it may be overwritten by now.
        wanted: Outputs to make if the content is unchanged. If it changed, all are made.
        enabled: All outputs of the image's family, with the fingerprint of their recipe.
        own: The image's own content when it was last processed.
        twins: Contents of other images with the same size in bytes; one may be the same.
        is_known: This very upload was processed before, so `own` is its content.
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
    """An unexpected exception as text, since not every exception can be pickled.

    Attributes:
        reason: One sentence for a person, with the exception's type.
        trace: Traceback for the log.
    """

    reason: str
    trace: str


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        verdict: The result to write to the row; None if an external error prevented processing.
        trouble: One sentence about that external error.
        trouble_code: Machine-readable kind of that error.
        is_outdated: The object is no longer the announced upload.
        failure: The unexpected exception, if one was raised; the pool decides what it means.
        made: Names of the outputs that were made by this task.
        pictures: Small copies of those outputs as data URIs, by output; `metadata` has one too.
        milliseconds: Duration by step: `read`, `copy`, `process`, `write`.
        began: Unix time at which work began; 0 if no worker answered.
        worker: Process id of the worker that answered.
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


# The result of an upload: which outputs to make, what the content is, and ready or rejected.


MOST_REASON = 1_000
MOST_CODE = 60
MOST_METADATA = 16_384
"""Maximum lengths, in characters, of texts that rows and events repeat."""


def own_metadata(output: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that an output adds to its row and events, checked.

    Raises:
        OutputFailed: It is too long, or JSON cannot represent it.
    """
    if not metadata:
        return {}
    try:
        text = json.dumps(dict(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputFailed(f"JSON cannot hold the metadata of {output!r}: {error}.") from error
    if len(text) > MOST_METADATA:
        raise OutputFailed(
            f"The metadata of {output!r} has {len(text):,} characters, more than {MOST_METADATA:,}."
        )
    kept: dict[str, Any] = json.loads(text)
    return kept


def known_content(task: Task, sha256: str) -> Content | None:
    """The known content with this hash, preferably the image's own."""
    candidates = (task.own, *task.twins)
    return next((c for c in candidates if c is not None and c.sha256 == sha256), None)


def what_to_make(task: Task, sha256: str) -> tuple[frozenset[str], dict[str, OutputRecord]]:
    """Split the outputs of a task into those to make and those to keep.

    Outputs of an older content are never kept, so that no reader sees outputs of two contents.
    """
    if task.own is None or sha256 != task.own.sha256:
        return frozenset(task.enabled), {}
    present = task.own.outputs
    wanted = task.wanted | {name for name in task.enabled if name not in present}
    kept = {
        name: record
        for name, record in present.items()
        if name in task.enabled and name not in wanted
    }
    return frozenset(wanted), kept


def described(task: Task, sha256: str, facts: PhotoFacts) -> Content:
    """The content record of a decoded photograph."""
    return Content(
        image_id=task.image_id,
        key=task.upload.key,
        sha256=sha256,
        media_type=facts.media_type,
        width=facts.width,
        height=facts.height,
        mode=facts.mode,
        outputs={},
        facts={
            "format": facts.format,
            "frames": facts.frames,
            "orientation": facts.orientation,
            "notes": list(facts.notes),
        },
    )


def ready(task: Task, content: Content, outputs: Mapping[str, OutputRecord]) -> Verdict:
    """The result of an upload with this content and these outputs."""
    # The same bytes may have had another name where they were first seen.
    facts = {name: value for name, value in content.facts.items() if name != "suffix_mismatch"}
    if mismatch := suffix_mismatch(task.upload.key, str(content.facts.get("format", ""))):
        facts["suffix_mismatch"] = mismatch
    return Verdict(
        image_id=task.image_id,
        upload=task.upload,
        state="ready",
        run_id=task.run_id,
        recipe=recipe_fingerprint(outputs),
        sha256=content.sha256,
        media_type=content.media_type,
        width=content.width,
        height=content.height,
        mode=content.mode,
        outputs=outputs,
        facts=facts,
    )


def rejected(task: Task, code: str, reason: str) -> Verdict:
    """The result of an upload that cannot become an image; outputs of older contents are dropped.

    Both texts are cut, since reasons may quote the file and other packages' readers write their
    own.
    """
    return Verdict(
        image_id=task.image_id,
        upload=task.upload,
        state="rejected",
        run_id=task.run_id,
        recipe=None,
        reason=shortened(reason, MOST_REASON),
        reason_code=shortened(code, MOST_CODE),
    )


def shortened(text: object, most: int) -> str:
    """Cut a text to a maximum number of characters, ending in an ellipsis if it was cut."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


def withheld(task: Task, rejection: Withheld) -> Verdict:
    """The result of an upload whose bytes the store blocks.

    Outputs made from this very upload stay, for objects that were archived after processing.
    """
    verdict = rejected(task, rejection.code, rejection.reason)
    if task.own is None or not task.is_known:
        return verdict
    return replace(
        ready(task, task.own, task.own.outputs),
        state="rejected",
        reason=rejection.reason,
        reason_code=rejection.code,
    )


@dataclass
class Summary:
    """What became of a batch; keys are object keys.

    Attributes:
        processed: Number of images whose outputs were made.
        bytes: Total size of the uploads that became ready or rejected.
        unchanged: Number of images that needed nothing.
        rejected: Reason and advice by key.
        still_rejected: The same for images that were rejected earlier and not retried.
        troubled: The external error that prevented processing, by key.
        overtaken: Images that were deleted before or while this run processed them, or that
            another run has processed since. Nothing is reported about them.
    """

    processed: int = 0
    bytes: int = 0
    unchanged: int = 0
    rejected: dict[str, str] = field(default_factory=dict)
    still_rejected: dict[str, str] = field(default_factory=dict)
    troubled: dict[str, str] = field(default_factory=dict)
    overtaken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """An image that a worker is done with, as its row was planned, and its outcome."""

    image: Image
    outcome: Outcome
