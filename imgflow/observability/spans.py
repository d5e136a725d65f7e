"""OpenTelemetry spans. Only this module imports the library, and only while traces are on.

An upload is a trace: a root span for when it was noticed, with a child for each time that it was
processed. A run is a trace of its own, whose id is the run's id in Dagster; the run and the uploads
that it processed link to each other. A request continues the caller's trace and links to the upload
that it is about.

Workers make no spans; the run makes them from what workers answer. A worker has a memory limit and
may be killed at any time, and its span would be missing just when it is needed most.

Other modules call `traces`, which does nothing while traces are off.
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

# The most that the end of a run waits for its spans to be sent, even if the collector is down.
FLUSH_SECONDS = 2.0

SERVER_ERRORS = 500

# A listing notices a thousand uploads per page, more than the library sends in a batch.
MOST_WAITING = 20_000

_run: ContextVar[trace.Span | None] = ContextVar("imgflow_run_span", default=None)


class ChosenIds(RandomIdGenerator):
    """Generates random ids for traces and spans, except where the caller chooses them."""

    def __init__(self) -> None:
        self._chosen = threading.local()

    @contextmanager
    def being(self, trace_id: int, span_id: int | None = None) -> Iterator[None]:
        """Give the next root span these ids."""
        self._chosen.trace_id, self._chosen.span_id = trace_id, span_id
        try:
            yield
        finally:
            self._chosen.trace_id = self._chosen.span_id = None

    def generate_trace_id(self) -> int:
        """Return the chosen trace id, or a random one."""
        return getattr(self._chosen, "trace_id", None) or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the chosen span id, or a random one."""
        return getattr(self._chosen, "span_id", None) or super().generate_span_id()


class Spans:
    """Makes the spans of this process and sends them in the background."""

    def __init__(self) -> None:
        """Configure sending from the `OTEL_…` variables; connects only at the first span."""
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
        """Return the root span of an upload, whichever process made it.

        Whether it was sampled follows from its trace id, so every process decides the same.
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
        """Start an upload's trace."""
        with self._ids.being(int(upload, 16), int(root_span_id(upload), 16)):
            span = self._tracer.start_span(
                "upload", Context(), SpanKind.CONSUMER, attributes=attributes
            )
        span.end()

    def ticked(self, sensor: str, began: float, attributes: Mapping[str, Value]) -> None:
        """Record a trace of one span: how long a tick took, and what it saw."""
        span = self._tracer.start_span(
            "tick",
            Context(),
            attributes={"imgflow.sensor": sensor, **attributes},
            start_time=round(began * 1e9),
        )
        span.end()

    def worked(self, work: Work) -> None:
        """Add a span to an upload's trace, linked with the current run."""
        above = self.context_of(work.trace)
        if not above.trace_flags.sampled:
            return
        run = _run.get()
        links = []
        if run is not None:
            links = [Link(run.get_span_context())]
            run.add_link(above)  # the library keeps 128, or OTEL_SPAN_LINK_COUNT_LIMIT of them
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
        """Trace a run until the end of the block; the trace has the run's id."""
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
        """Trace a request until the end of the block, within the caller's trace if there is one."""
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
        """Send waiting spans now, since the process of a run ends without any cleanup."""
        sending = threading.Thread(target=self._provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
