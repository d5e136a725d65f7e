"""Probes that check whether the services of `imgflow up` work, by calling them as users do.

A running process may not answer. Each probe has its own thread, so one that waits keeps neither the
other probes nor restarts from going on. What follows from silence is in `supervisor`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import sqlalchemy as sa
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.database.engine import bounded
from imgflow.service.probe import DIRECT

# Pause between two questions.
PAUSE_SECONDS = 2.0

# Time limit for one question, generous enough for an overloaded machine.
ANSWER_SECONDS = 10.0

# Far more than a busy machine needs: answers take milliseconds, or a second with forty times more
# processes than cores.
SILENT_SECONDS = 20.0

# A restart for silence longer ago than this says nothing about the machine any more.
REMEMBERED_SECONDS = 86_400.0

# Starting includes loading definitions, pages and libraries.
START_SECONDS = 120.0

# Dagster's daemon writes a heartbeat every 30 seconds, and may miss one while its database is slow.
DAEMON_SILENT_SECONDS = 100.0

BEATS = sa.text("SELECT max(timestamp) FROM daemon_heartbeats")


class Probe:
    """Asks one service again and again.

    Attributes:
        silent_seconds: After this long without an answer, the service should be restarted. Each
            such restart doubles it, to give slow machines enough time; after a day without one, it
            is back at its first value.
        trouble: Error of the last question; empty if it was answered.
        is_starting: Whether the service has not answered since it was started.
    """

    def __init__(self, ask: Callable[[], None], *, silent_seconds: float = SILENT_SECONDS) -> None:
        """Store the question, which raises if it is not answered."""
        self.silent_seconds = silent_seconds
        self.trouble = ""
        self._ask = ask
        self._first_seconds = silent_seconds
        self._started = time.monotonic()
        self._answered = time.monotonic()
        self.is_starting = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Start asking a service that was just started; call it after each start."""
        self.forgive()
        self._started = time.monotonic()
        self.is_starting = True
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()

    def is_silent(self) -> bool:
        """Return whether there was no answer for too long."""
        patience = max(self.silent_seconds, START_SECONDS if self.is_starting else 0.0)
        return time.monotonic() - self._answered > patience

    def forgive(self) -> None:
        """Restart the count of silence, since the machine had no time to ask."""
        self._answered = time.monotonic()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except Exception as error:  # any error means no answer
                self.trouble = str(error) or type(error).__name__
            else:
                self.trouble = ""
                self._answered = time.monotonic()
                self.is_starting = False
                if self._answered - self._started > REMEMBERED_SECONDS:
                    self.silent_seconds = self._first_seconds
            self._stop.wait(PAUSE_SECONDS)


def ask_page(url: str) -> None:
    """Request a page; raises unless it answers."""
    with DIRECT.open(url, timeout=ANSWER_SECONDS) as page:
        page.read()


def ask_code_server(address: str, seconds: float = ANSWER_SECONDS) -> None:
    """Ask the process that evaluates sensors and starts runs; raises unless it serves."""
    with grpc.insecure_channel(address) as channel:
        answer = HealthStub(channel).Check(HealthCheckRequest(service="DagsterApi"), seconds)
    if answer.status != HealthCheckResponse.SERVING:
        raise ConnectionError("it does not serve yet")


class DaemonBeats:
    """Probes Dagster's daemon, which takes no requests, by its heartbeat every 30 seconds."""

    def __init__(self, engine: sa.Engine) -> None:
        """Store the database; the last heartbeat in it may be old."""
        self._engine = bounded(engine, ANSWER_SECONDS)
        self._last: object = None

    def __call__(self) -> None:
        """Raise unless there was a heartbeat since the last call; without a database, do nothing.

        Only a new heartbeat counts, not its age: clocks jump, and machines sleep.
        """
        try:
            with self._engine.connect() as connection:
                beat = connection.execute(BEATS).scalar()
        except SQLAlchemyError:
            return
        if beat == self._last:
            raise TimeoutError("it gives no sign of life")
        self._last = beat
