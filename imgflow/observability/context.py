"""Context for log lines: the run, request or upload that the current code works for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[dict[str, str] | None] = ContextVar("imgflow_log_fields", default=None)


@contextmanager
def bound(**fields: str) -> Iterator[dict[str, str]]:
    """Add these fields to every log line until the end of the block.

    Yields:
        All fields. Threads that get a copy of the block's context also see what `note` adds.
    """
    everything = {**(_fields.get() or {}), **fields}
    token = _fields.set(everything)
    try:
        yield everything
    finally:
        _fields.reset(token)


def note(**fields: str) -> None:
    """Add fields until the innermost block ends; does nothing outside of any block."""
    current = _fields.get()
    if current is not None:
        current.update(fields)


def fields() -> Mapping[str, str]:
    """Return the fields that log lines get now."""
    return _fields.get() or {}
