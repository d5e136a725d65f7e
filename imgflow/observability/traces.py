"""Traces by OpenTelemetry, where they are asked for; else nothing of it is even imported.

Everybody calls these functions, which do nothing while traces are off. `spans` does the rest.
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
    """Raise `SettingsError` where traces are asked for and the packages are not installed."""
    try:
        is_well = not is_on or all(find_spec(name) for name in PACKAGES)
    except ModuleNotFoundError:  # of what the packages lie in
        is_well = False
    if not is_well:
        raise SettingsError(
            "IMGFLOW_TRACES needs packages that are not installed: "
            "pip install 'imgflow[traces]', or set IMGFLOW_TRACES=false."
        )


def configure_traces(is_on: bool) -> None:
    """Send traces from this process, or none; where to, the standard variables `OTEL_…` say.

    Raises:
        SettingsError: the packages are not installed.
    """
    global _spans  # noqa: PLW0603 - one for each process, as the loggers are
    if not is_on or _spans is not None:
        return
    check_traces(is_on)
    from imgflow.observability.spans import Spans

    _spans = Spans()


def are_on() -> bool:
    """Whether this process sends traces."""
    return _spans is not None


def seen(trace: str, attributes: Mapping[str, Value]) -> None:
    """An upload was seen: its trace begins."""
    if _spans is not None:
        _spans.seen(trace, attributes)


def worked(work: Work) -> None:
    """Something was done for an upload, by a worker of the run that goes on or by the API."""
    if _spans is not None:
        _spans.worked(work)


def ticked(sensor: str, began: float, attributes: Mapping[str, Value]) -> None:
    """A tick of a sensor that saw something, from `began`, in seconds since 1970, until now."""
    if _spans is not None:
        _spans.ticked(sensor, began, attributes)


@contextmanager
def run(run_id: str, attributes: Mapping[str, Value]) -> Iterator[MutableMapping[str, Value]]:
    """A run goes on until the end of the block; what it yields may be added to."""
    more: dict[str, Value] = {}
    if _spans is None:
        yield more
        return
    with _spans.run(run_id, attributes, more):
        yield more


@contextmanager
def request(method: str, headers: Mapping[str, str]) -> Iterator[Answered]:
    """A request is answered until the end of the block."""
    answered = Answered()
    if _spans is None:
        yield answered
        return
    with _spans.request(method, headers, answered):
        yield answered
