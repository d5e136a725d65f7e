"""Metrics of this process itself: its requests and the frames that it makes.

They live in the memory of one process and start at zero with it, as Prometheus expects. `imgflow
up` runs one API process; several workers behind one port (`uvicorn --workers`) would answer scrapes
in turn, each with its own numbers, and would need prometheus-client's multiprocess mode. What runs
count is in the database and the same from every process: see `imgflow.api.routes.metrics`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import Request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgflow.api.http.exceptions import cause_of, refused_by
from imgflow.api.http.problems import PROBLEMS

# Labels must have few values, whatever callers send: each adds series for the process's lifetime.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
CLIENT_GONE = 499  # nginx's status for a caller that left before the answer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Passed:
    """What a request took: bytes of both bodies, and seconds."""

    received: int = 0
    sent: int = 0
    seconds: float = 0.0


class Measures:
    """Metrics of one app; several apps in a process do not share them."""

    def __init__(self) -> None:
        # This affects the entire process, since the library has no narrower way. Otherwise each
        # series would get another with its start time, which nobody uses but which nearly doubles
        # the answer.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "imgflow_http_requests_total",
            "Requests that the API answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "imgflow_http_request_duration_seconds",
            "From a request to the last byte of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._received = Counter(
            "imgflow_http_received_bytes_total",
            "Bytes of the bodies of requests.",
            ("method", "route"),
            registry=self.registry,
        )
        self._sent = Counter(
            "imgflow_http_sent_bytes_total",
            "Bytes of the bodies of answers, before they are compressed.",
            ("method", "route"),
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "imgflow_http_requests_in_progress",
            "Requests that are being answered.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "imgflow_process_requests_waiting",
            "Requests that wait for an image to be processed by its URL.",
            registry=self.registry,
        )
        self._frame_seconds = Histogram(
            "imgflow_frame_seconds",
            "Finding, reading, colouring and encoding a depth frame; frames that the caller has "
            "already do not count.",
            ("media_type",),
            buckets=SECONDS,
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, passed: Passed) -> None:
        """Count a request that was answered."""
        method = method if method in METHODS else OTHER
        self._received.labels(method, route).inc(passed.received)
        self._sent.labels(method, route).inc(passed.sent)
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(passed.seconds)

    def frame(self, media_type: str, seconds: float) -> None:
        """Count a frame that was made."""
        self._frame_seconds.labels(media_type).observe(seconds)


class Measured:
    """ASGI layer that measures requests by the template of their route, never by their path."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()
        passed = Passed()

        async def receive_noted() -> Message:
            message = await receive()
            passed.received += len(message.get("body", b""))
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                passed.sent += len(message.get("body", b""))
            await send(message)

        self._measures.in_progress.inc()
        try:
            await self._app(scope, receive_noted, send_noted)
        except ClientDisconnect:
            status = CLIENT_GONE
            raise
        except Exception as error:
            # The client gets this status, even if another was passed to `send` before.
            status = PROBLEMS[refused_by(cause_of(error)).code].status
            raise
        finally:
            # Unknown paths have no route, and callers may invent any number of them.
            route = getattr(scope.get("route"), "path", OTHER)
            scope.setdefault("state", {})["route"] = route
            passed.seconds = time.perf_counter() - began
            self._measures.in_progress.dec()
            self._measures.request(scope["method"], route, status, passed)


def measures_of(request: Request) -> Measures:
    """Return the metrics of the app that answers a request."""
    measures: Measures = request.app.state.measures
    return measures
