"""Events of uploads, which go to logs and traces alike: noticed, processed."""

from __future__ import annotations

import logging

from imgflow.observability import context, traces
from imgflow.observability.trace_records import Value, Work, trace_id

logger = logging.getLogger("imgflow.uploads")


def is_heard() -> bool:
    """Return whether anybody listens; only then is a line made for each upload."""
    return logger.isEnabledFor(logging.INFO) or traces.are_on()


def upload_seen(source: str, key: str, identity: str, *, image_id: int, is_new: bool) -> None:
    """Report an unknown upload that a listing, a message or a caller of the API showed."""
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
    """Return who noticed it: a sensor names itself; else a request, or a run a person started."""
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
    """Report the outcome of processing an upload.

    Args:
        source: Canonical URL of the source.
        key: Object key below the source's prefix.
        identity: Distinguishes the processed upload from others under the same key.
        image_id: Id of its row.
        outcome: `ready`, `rejected`, `trouble` or `overtaken`.
        reason: Why it is not `ready`; None if it is.
        began: When work on it began, in seconds since 1970; 0 if no worker answered.
        worker: Process id of the worker.
        milliseconds: Duration of each step, by its name.
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
