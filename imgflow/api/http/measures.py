"""What this process measures of itself: its requests and the frames that it makes.

It lives in the memory of one process and begins at zero with it, as Prometheus expects. `imgflow
up` runs one process of the API; several workers behind one port (`uvicorn --workers`) would answer
scrapes in turn, each with its own numbers, and need prometheus-client's multiprocess mode. What
runs count lies in the database and is the same from every process.
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

# A label has few values, whatever callers send: each makes series that live as long as the process.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
CLIENT_GONE = 499  # nginx's number for a caller that did not wait for the answer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Passed:
    """What a request took: bytes of both bodies, and time."""

    received: int = 0
    sent: int = 0
    seconds: float = 0.0


class Measures:
    """Metrics of one app; apps in one process share none of them."""

    def __init__(self) -> None:
        # For the whole process, since the library knows no other way: a series for the time at
        # which each series began would nearly double the answer, and nobody asks for it.
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
        """Note a request that was answered."""
        method = method if method in METHODS else OTHER
        self._received.labels(method, route).inc(passed.received)
        self._sent.labels(method, route).inc(passed.sent)
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(passed.seconds)

    def frame(self, media_type: str, seconds: float) -> None:
        """Note a frame that was made."""
        self._frame_seconds.labels(media_type).observe(seconds)


class Measured:
    """ASGI layer that measures requests, by the templates of their routes and never by paths."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
            # What had been said before is not what the client got.
            status = PROBLEMS[refused_by(cause_of(error)).code].status
            raise
        finally:
            # Paths that lead nowhere have no route, and callers invent any number of them.
            route = getattr(scope.get("route"), "path", OTHER)
            scope.setdefault("state", {})["route"] = route
            passed.seconds = time.perf_counter() - began
            self._measures.in_progress.dec()
            self._measures.request(scope["method"], route, status, passed)


def measures_of(request: Request) -> Measures:
    """The metrics of the app that answers a request."""
    measures: Measures = request.app.state.measures
    return measures
