"""Whether the services of `imgflow up` do what they are there for, asked as their users ask them.

A process that runs may answer nobody. Each probe asks in a thread of its own, so that one which has
to wait keeps nobody from asking the others, and from restarting them.
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

# Between two questions.
PAUSE_SECONDS = 2.0

# One question may wait that long, on a machine with more work than it can do.
ANSWER_SECONDS = 10.0

# Far from what a busy machine needs: answers take milliseconds, and with forty times more processes
# than cores a second.
SILENT_SECONDS = 20.0

# A restart for silence that is so long ago says nothing of the machine any more.
REMEMBERED_SECONDS = 86_400.0

# Definitions, pages and libraries are loaded first.
START_SECONDS = 120.0

# Dagster's daemon gives a sign of life every 30 seconds. It may miss one while its database is
# slow.
DAEMON_SILENT_SECONDS = 100.0

BEATS = sa.text("SELECT max(timestamp) FROM daemon_heartbeats")


class Probe:
    """Asks one service again and again.

    Attributes:
        silent_seconds: after so long without an answer, the service is to be restarted. Each time
            that happens doubles it, so that a machine which is merely too slow gets its time; a day
            without it, and it is as in the beginning.
        trouble: what came instead of the last answer.
        is_starting: whether the service was started and has not answered since.
    """

    def __init__(self, ask: Callable[[], None], *, silent_seconds: float = SILENT_SECONDS) -> None:
        """Take a question, which raises when it is not answered."""
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
        """Begin to ask a service that was just started; once, or each time."""
        self.forgive()
        self._started = time.monotonic()
        self.is_starting = True
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def is_silent(self) -> bool:
        """Whether there was no answer for too long."""
        patience = max(self.silent_seconds, START_SECONDS if self.is_starting else 0.0)
        return time.monotonic() - self._answered > patience

    def forgive(self) -> None:
        """Begin to count anew, where nobody had time to ask."""
        self._answered = time.monotonic()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except Exception as error:  # whatever it is: it was no answer
                self.trouble = str(error) or type(error).__name__
            else:
                self.trouble = ""
                self._answered = time.monotonic()
                self.is_starting = False
                if self._answered - self._started > REMEMBERED_SECONDS:
                    self.silent_seconds = self._first_seconds
            self._stop.wait(PAUSE_SECONDS)


def ask_page(url: str) -> None:
    """Ask for a page; raises unless it answers."""
    with DIRECT.open(url, timeout=ANSWER_SECONDS) as page:
        page.read()


def ask_code_server(address: str, seconds: float = ANSWER_SECONDS) -> None:
    """Ask the process that evaluates sensors and starts runs; raises unless it serves."""
    with grpc.insecure_channel(address) as channel:
        answer = HealthStub(channel).Check(HealthCheckRequest(service="DagsterApi"), seconds)
    if answer.status != HealthCheckResponse.SERVING:
        raise ConnectionError("it does not serve yet")


class DaemonBeats:
    """Dagster's daemon, which answers nobody, and writes down every 30 seconds that it lives."""

    def __init__(self, engine: sa.Engine) -> None:
        """Take the database; the last beat there may be of another day."""
        self._engine = bounded(engine, ANSWER_SECONDS)
        self._last: object = None

    def __call__(self) -> None:
        """Raise unless it has written since the last look; nothing is known without a database.

        That the beat changed is what counts, and not how old it is: clocks jump, and machines
        sleep.
        """
        try:
            with self._engine.connect() as connection:
                beat = connection.execute(BEATS).scalar()
        except SQLAlchemyError:
            return
        if beat == self._last:
            raise TimeoutError("it gives no sign of life")
        self._last = beat
