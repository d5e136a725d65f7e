"""What goes to a pool process and what comes back from it."""

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


# Verdicts on uploads: what is to be made of one, what it turned out to be, what became of it.


MOST_REASON = 1_000
MOST_CODE = 60
MOST_METADATA = 16_384
"""Characters of what rows and events repeat."""


def own_metadata(output: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an output, which rows and events repeat for each image.

    Raises:
        OutputFailed: it is too long, or nothing that JSON holds.
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
    """The content with this hash that is known already; the image's own first."""
    candidates = (task.own, *task.twins)
    return next((c for c in candidates if c is not None and c.sha256 == sha256), None)


def what_to_make(task: Task, sha256: str) -> tuple[frozenset[str], dict[str, OutputRecord]]:
    """Split the outputs of a task into those to make and those to keep.

    Nothing of an older content is kept, so that a reader never sees outputs of two contents.
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
    """What a decoded photograph turned out to be."""
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
    """The verdict on an upload of this content with these outputs."""
    # The same bytes may bear another name here than where they were first seen.
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
    """The verdict on an upload that cannot become an image; outputs of older contents go.

    Reasons may quote the file, and readers of other packages write their own, so both texts are
    cut.
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
    """A text of at most so many characters, with an ellipsis where it was cut."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


def withheld(task: Task, rejection: Withheld) -> Verdict:
    """The verdict on an upload whose bytes the store keeps back.

    What was made of this very upload stays, for what was archived after it was processed.
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
        processed: images whose outputs were made.
        bytes: size of the uploads on which there is a verdict.
        unchanged: images on which nothing had to be done.
        rejected: key to reason and fix.
        still_rejected: the same of images on which the verdict is older and stays.
        troubled: key to what outside kept it from being processed.
        overtaken: images that were deleted before this run came to them, or while it had them in
            hand, or that another run has processed since; nothing is said of them.
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
    """An image whose row is written and whose events are due."""

    image: Image
    outcome: Outcome
