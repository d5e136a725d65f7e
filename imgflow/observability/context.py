"""What every log line says that is written meanwhile: which run, which request, which upload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[dict[str, str] | None] = ContextVar("imgflow_log_fields", default=None)


@contextmanager
def bound(**fields: str) -> Iterator[dict[str, str]]:
    """Say these fields in every line until the end of the block.

    Yields:
        All fields; threads that the block hands its context to see what `note` adds to them.
    """
    everything = {**(_fields.get() or {}), **fields}
    token = _fields.set(everything)
    try:
        yield everything
    finally:
        _fields.reset(token)


def note(**fields: str) -> None:
    """Say more from now on, until the end of the block that was entered last; else nothing."""
    current = _fields.get()
    if current is not None:
        current.update(fields)


def fields() -> Mapping[str, str]:
    """What lines say now."""
    return _fields.get() or {}
