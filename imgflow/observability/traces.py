"""Functions through which all other modules trace; they do nothing while traces are off.

`spans` does the work and imports OpenTelemetry, which is not even imported while traces are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from imgflow.errors import SettingsError
from imgflow.observability.trace_records import Answered, Value, Work

if TYPE_CHECKING:
    from imgflow.observability.spans import Spans

PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


_spans: Spans | None = None


def check_traces(is_on: bool) -> None:
    """Raise `SettingsError` if traces are on but their packages are not installed."""
    try:
        is_well = not is_on or all(find_spec(name) for name in PACKAGES)
    except ModuleNotFoundError:  # a parent package is missing
        is_well = False
    if not is_well:
        raise SettingsError(
            "IMGFLOW_TRACES needs packages that are not installed: "
            "pip install 'imgflow[traces]', or set IMGFLOW_TRACES=false."
        )


def configure_traces(is_on: bool) -> None:
    """Send traces from this process if they are on, to where the standard `OTEL_…` variables say.

    Raises:
        SettingsError: The packages are not installed.
    """
    global _spans  # noqa: PLW0603 - one per process, like loggers
    if not is_on or _spans is not None:
        return
    check_traces(is_on)
    from imgflow.observability.spans import Spans

    _spans = Spans()


def are_on() -> bool:
    """Return whether this process sends traces."""
    return _spans is not None


def seen(trace: str, attributes: Mapping[str, Value]) -> None:
    """Start the trace of an upload that was noticed."""
    if _spans is not None:
        _spans.seen(trace, attributes)


def worked(work: Work) -> None:
    """Record work for an upload, done by a worker of the current run or by the API."""
    if _spans is not None:
        _spans.worked(work)


def ticked(sensor: str, began: float, attributes: Mapping[str, Value]) -> None:
    """Record a sensor tick that saw something, from `began` (seconds since 1970) until now."""
    if _spans is not None:
        _spans.ticked(sensor, began, attributes)


@contextmanager
def run(run_id: str, attributes: Mapping[str, Value]) -> Iterator[MutableMapping[str, Value]]:
    """Trace a run until the end of the block; attributes may be added to what this yields."""
    more: dict[str, Value] = {}
    if _spans is None:
        yield more
        return
    with _spans.run(run_id, attributes, more):
        yield more


@contextmanager
def request(method: str, headers: Mapping[str, str]) -> Iterator[Answered]:
    """Trace a request until the end of the block."""
    answered = Answered()
    if _spans is None:
        yield answered
        return
    with _spans.request(method, headers, answered):
        yield answered
