"""What happens to uploads, said in logs and traces alike: seen, processed, shown."""

from __future__ import annotations

import logging

from imgflow.observability import context, traces
from imgflow.observability.trace_records import Value, Work, trace_id

logger = logging.getLogger("imgflow.uploads")


def is_heard() -> bool:
    """Whether anybody listens; a line for each upload is made only then."""
    return logger.isEnabledFor(logging.INFO) or traces.are_on()


def upload_seen(source: str, key: str, identity: str, *, image_id: int, is_new: bool) -> None:
    """A listing, a message or a caller of the API showed an upload that was not known."""
    trace = trace_id(source, key, identity)
    said: dict[str, Value] = {
        "key": key,
        "image": image_id,
        "is_new": is_new,
        "seen_by": _seen_by(),
    }
    logger.info("upload seen", extra={"trace_id": trace, **said})
    traces.seen(trace, {f"imgflow.{name}": value for name, value in said.items()})


def _seen_by() -> str:
    """Who looks: a sensor says so; else it is a request, or a run that a person asked for."""
    known = context.fields()
    if "seen_by" in known:
        return known["seen_by"]
    return "api" if "request_id" in known else "run"


def upload_processed(
    source: str,
    key: str,
    identity: str,
    *,
    image_id: int,
    outcome: str,
    reason: str | None,
    began: float,
    worker: int,
    milliseconds: dict[str, float],
) -> None:
    """There is an outcome.

    Args:
        source: canonical URL.
        key: of the object.
        identity: of the upload that was processed.
        image_id: its row.
        outcome: `ready`, `rejected`, `trouble` or `overtaken`.
        reason: of all but `ready`.
        began: when work on it began, in seconds since 1970; 0 when no worker answered.
        worker: process id of the worker.
        milliseconds: by step.
    """
    trace = trace_id(source, key, identity)
    said: dict[str, Value] = {"image": image_id, "outcome": outcome}
    if reason:
        said["reason"] = reason
    if worker:
        said["worker"] = worker
    steps = {f"{step}_ms": value for step, value in milliseconds.items()}
    level = logging.WARNING if outcome == "trouble" else logging.INFO
    logger.log(level, "upload processed", extra={"trace_id": trace, "key": key, **said, **steps})
    attributes = {"key": key, **said, **steps}
    traces.worked(
        Work(
            trace,
            began,
            sum(milliseconds.values()) / 1000,
            trouble=reason if outcome == "trouble" else None,
            attributes={f"imgflow.{name}": value for name, value in attributes.items()},
        )
    )
