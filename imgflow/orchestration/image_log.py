"""A line and a span for each image that a run has done with: in logs and traces, not in events.

What goes through `context.log` is an event in Dagster's database for ever; these are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from imgflow.observability import upload_events

if TYPE_CHECKING:
    from imgflow.work.batch import Finished


def tell_finished(finished: Iterable[Finished], recorded: Collection[int]) -> None:
    """Say what became of images.

    Args:
        finished: by workers.
        recorded: ids of the rows that took their verdict.
    """
    if not upload_events.is_heard():
        return
    for done in finished:
        verdict, outcome = done.outcome.verdict, done.outcome
        if verdict is None:
            said, reason, identity = "trouble", outcome.trouble, done.image.announced
        elif done.image.id not in recorded:
            said, reason, identity = "overtaken", None, verdict.upload.identity
        else:
            said, reason, identity = verdict.state, verdict.reason, verdict.upload.identity
        upload_events.upload_processed(
            done.image.source,
            done.image.key,
            identity,
            image_id=done.image.id,
            outcome=said,
            reason=reason,
            began=outcome.began,
            worker=outcome.worker,
            milliseconds=dict(outcome.milliseconds),
        )
