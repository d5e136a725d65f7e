"""Verdicts on uploads: what is to be made of one, what it turned out to be, what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imgflow.catalog.records import Content, Verdict, recipe_fingerprint
from imgflow.errors import OutputFailed, Withheld
from imgflow.images.formats.sniffing import suffix_mismatch
from imgflow.images.process import PhotoFacts
from imgflow.work.tasks import OutputRecord, Task

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
