"""Spans of OpenTelemetry: the only module that imports it, and only where traces are on.

An upload is a trace: a span for its being seen, and beneath it one for each time that it was
processed. A run is a trace of its own, whose id is that of the run in Dagster; it is linked with
the uploads that it processed, and they with it. A request goes on with the caller's trace and is
linked with the upload that it is about.

Workers make no spans. The run makes them of what workers answer: a worker has a limit of memory,
and may be killed at any time, in which case its span would be missing where it is needed most.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import time_ns

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from imgflow.observability.trace_records import Answered, Value, Work, root_span_id

# For which the end of a run waits until its spans are sent; a collector that is away costs no more.
FLUSH_SECONDS = 2.0

SERVER_ERRORS = 500

# What is seen at once, a thousand a page, is more than what a batch of the library sends.
MOST_WAITING = 20_000

_run: ContextVar[trace.Span | None] = ContextVar("imgflow_run_span", default=None)


class ChosenIds(RandomIdGenerator):
    """Ids of traces and spans: random, except where one says which."""

    def __init__(self) -> None:
        self._chosen = threading.local()

    @contextmanager
    def being(self, trace_id: int, span_id: int | None = None) -> Iterator[None]:
        """Give the next span, a root, these ids."""
        self._chosen.trace_id, self._chosen.span_id = trace_id, span_id
        try:
            yield
        finally:
            self._chosen.trace_id = self._chosen.span_id = None

    def generate_trace_id(self) -> int:
        """The id of a trace."""
        return getattr(self._chosen, "trace_id", None) or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The id of a span."""
        return getattr(self._chosen, "span_id", None) or super().generate_span_id()


class Spans:
    """Makes the spans of this process and sends them in the background."""

    def __init__(self) -> None:
        """Begin to send, as the variables `OTEL_…` say; nothing connects before the first span."""
        self._ids = ChosenIds()
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "imgflow"}))
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=MOST_WAITING)
        )
        self._tracer = self._provider.get_tracer("imgflow")

    def context_of(self, upload: str) -> SpanContext:
        """The span that stands for an upload being seen, whoever made it and when.

        Whether it was sampled follows from its trace id, alike in every process.
        """
        trace_id = int(upload, 16)
        decision = self._provider.sampler.should_sample(None, trace_id, "upload")
        flags = (
            TraceFlags.SAMPLED
            if decision.decision is Decision.RECORD_AND_SAMPLE
            else TraceFlags.DEFAULT
        )
        span_id = int(root_span_id(upload), 16)
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))

    def seen(self, upload: str, attributes: Mapping[str, Value]) -> None:
        """Begin an upload's trace."""
        with self._ids.being(int(upload, 16), int(root_span_id(upload), 16)):
            span = self._tracer.start_span(
                "upload", Context(), SpanKind.CONSUMER, attributes=attributes
            )
        span.end()

    def ticked(self, sensor: str, began: float, attributes: Mapping[str, Value]) -> None:
        """A trace of one span: how long a tick took, and what it saw."""
        span = self._tracer.start_span(
            "tick",
            Context(),
            attributes={"imgflow.sensor": sensor, **attributes},
            start_time=round(began * 1e9),
        )
        span.end()

    def worked(self, work: Work) -> None:
        """Add a span to an upload's trace, linked with the run that goes on."""
        above = self.context_of(work.trace)
        if not above.trace_flags.sampled:
            return
        run = _run.get()
        links = []
        if run is not None:
            links = [Link(run.get_span_context())]
            run.add_link(above)  # the library keeps 128, or as many as OTEL_SPAN_LINK_COUNT_LIMIT
        span = self._tracer.start_span(
            "process",
            trace.set_span_in_context(NonRecordingSpan(above), Context()),
            attributes=work.attributes,
            links=links,
            start_time=round(work.began * 1e9) if work.began else None,
        )
        if work.trouble is not None:
            span.set_status(Status(StatusCode.ERROR, work.trouble))
        span.end(round((work.began + work.seconds) * 1e9) if work.began else None)

    @contextmanager
    def run(
        self, run_id: str, attributes: Mapping[str, Value], more: Mapping[str, Value]
    ) -> Iterator[None]:
        """A run's trace, whose id is that of the run."""
        with self._ids.being(int(run_id.replace("-", ""), 16)):
            span = self._tracer.start_span(
                "run", Context(), attributes={**attributes, "imgflow.run_id": run_id}
            )
        token = _run.set(span)
        try:
            yield
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            _run.reset(token)
            span.set_attributes(more)
            span.end()
            self._flush()

    @contextmanager
    def request(
        self, method: str, headers: Mapping[str, str], answered: Answered
    ) -> Iterator[None]:
        """A request, within the caller's trace if there is one."""
        span = self._tracer.start_span(
            method, propagate.extract(headers, Context()), SpanKind.SERVER, start_time=time_ns()
        )
        try:
            yield
        finally:
            if span.is_recording():
                span.update_name(f"{method} {answered.route}" if answered.route else method)
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.route", answered.route or "")
                span.set_attribute("http.response.status_code", answered.status)
                if answered.upload is not None:
                    span.add_link(self.context_of(answered.upload))
                    span.set_attribute("imgflow.trace_id", answered.upload)
                if answered.status >= SERVER_ERRORS:
                    span.set_status(Status(StatusCode.ERROR))
            span.end()

    def _flush(self) -> None:
        """Send what waits: the process of a run ends without a farewell."""
        sending = threading.Thread(target=self._provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
