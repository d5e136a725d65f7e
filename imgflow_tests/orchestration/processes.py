"""Real processes of imgflow that tests start at the same moment, hold at a place, and let go.

A server of each process has imported everything and forks for an order, which saves the seconds of
a start. Processes are held at gates: they call the test over a socket and go on when it hangs up.
Worker processes import this module too, so it imports no Dagster by itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgflow.catalog.database import engine
from imgflow.store.folder.source_folder import FolderSource
from imgflow.work import photographs as worker_module
from imgflow.work.tasks import WorkerConfig
from imgflow_tests.patience import PATIENCE_SECONDS

GATE = "IMGFLOW_TEST_GATE"
"""Port on which the test waits for processes that are held."""
HOLD = "IMGFLOW_TEST_HOLD"
"""Name of the gate at which the process is held, beside `start`."""
IMPATIENT = "IMGFLOW_TEST_IMPATIENT"
"""Set where a database that is away is given up within a second rather than half a minute."""
READS = "IMGFLOW_TEST_READS"
"""File to which every read of a source object is appended."""


class Gate:
    """Where processes wait for the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(PATIENCE_SECONDS)
        self.port = self._listener.getsockname()[1]

    @contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Wait until a process is held at each of these gates; they go on at the end."""
        waiting: list[socket.socket] = []
        try:
            for _ in names:
                connection, _ = self._listener.accept()
                waiting.append(connection)
            found = sorted(connection.recv(200).decode() for connection in waiting)
            assert found == sorted(names)
            yield
        finally:
            for connection in waiting:
                connection.close()

    def close(self) -> None:
        """Hold nobody any more."""
        self._listener.close()


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, what it printed, and the rest of what it said."""

    code: int
    output: str
    log: str


class Server:
    """A process that forks for each order."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # Not a module: worker processes would import it, and Dagster with it.
            [
                sys.executable,
                "-c",
                "from imgflow_tests.orchestration import processes as p; p.serve()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = Path()

    def start(self, gate: Gate, folder: Path, what: str, *arguments: Any, hold: str = "") -> None:
        """Have a process do something; it is first held at the gate `start`.

        Args:
            gate: where it waits.
            folder: for what it prints.
            what: one of `ORDERS`.
            arguments: of that.
            hold: the gate at which it is held once more.
        """
        self._folder = folder / f"process-{time.monotonic_ns()}"
        self._folder.mkdir(parents=True)
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("IMGFLOW_", "DAGSTER_", "AWS_"))
        }
        order = {
            "what": what,
            "arguments": arguments,
            "folder": str(self._folder),
            "environment": {**variables, GATE: str(gate.port), HOLD: hold},
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    @property
    def log(self) -> str:
        """What the process has said so far."""
        return (self._folder / "log").read_text()

    def said(self, *words: str) -> None:
        """Wait until the process has said one of these."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not any(word in self.log for word in words):
            assert time.monotonic() < give_up, self.log
            time.sleep(0.05)

    def ended(self) -> Ended:
        """Wait for the end; one that takes too long ends itself."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        with suppress(ProcessLookupError):
            os.killpg(answer["group"], signal.SIGKILL)  # workers that were left behind
        return Ended(answer["code"], (self._folder / "output").read_text(), self.log)

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=PATIENCE_SECONDS)


def serve() -> None:
    """Fork for each order on standard input, and answer with how the process ended."""
    import dagster_postgres  # noqa: F401

    import imgflow.cli.main  # noqa: F401
    import imgflow_tests.orchestration.project  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_obey(order))
        _, status = os.waitpid(child, 0)
        print(  # noqa: T201 - the answer
            json.dumps({"group": child, "code": os.waitstatus_to_exitcode(status)}), flush=True
        )


def _obey(order: dict[str, Any]) -> int:
    os.setsid()
    os.environ.update(order["environment"])
    signal.alarm(PATIENCE_SECONDS)  # a process that waits for ever ends with SIGALRM
    folder = Path(order["folder"])
    with (folder / "output").open("w") as output, (folder / "log").open("w") as log:
        os.dup2(output.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            _install()
            ORDERS[order["what"]](*order["arguments"])
        except SystemExit as done:
            return int(done.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
            return 70
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def gate(name: str) -> None:
    """Wait until the test lets this process go on; nothing when it waits for nobody."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", int(os.environ[GATE]))) as connection,
    ):
        connection.sendall(name.encode())
        connection.recv(1)


def _install() -> None:
    """Put the gates and the count of reads into this process and its workers."""
    from imgflow.orchestration.dagster_storage import event_rows
    from imgflow.orchestration.runs import execute
    from imgflow.service import ingest
    from imgflow.work import pool

    pool.start_worker = start_watched_worker  # type: ignore[attr-defined]

    if IMPATIENT in os.environ:
        from dagster_postgres import utils

        engine.RETRY_SECONDS = (0.1, 0.2)  # type: ignore[assignment]
        utils.retry_pg_connection_fn.__defaults__ = (1, 0.1)
    hold = os.environ[HOLD]
    if hold == "listed":
        listing = ingest._list_all

        def listed(*args: Any) -> Any:
            seen = listing(*args)
            gate(hold)
            return seen

        ingest._list_all = listed
    if hold == "before events":
        report = execute.report_images

        def reporting(context: Any, events: Any) -> None:
            if events:
                gate(hold)
            report(context, events)

        execute.report_images = reporting  # type: ignore[attr-defined]
    if hold in ("within planned events", "within events"):
        # Between the two COPY of one transaction.
        copy, step = event_rows.copy_rows, "PLANNED" if "planned" in hold else "MATERIALIZATION"

        def copying(connection: Any, table: str, columns: Any, rows: Any) -> None:
            rows = list(rows)
            copy(connection, table, columns, rows)
            if table == "event_logs" and any(
                str(value).endswith(step) for value in rows[0] if isinstance(value, str)
            ):
                gate(hold)

        event_rows.copy_rows = copying


def start_watched_worker(config: WorkerConfig) -> None:
    """Initialise a pool process whose reads are counted, and that can be held at one."""
    worker_module.start_worker(config)
    FolderSource.read = _watched(FolderSource.read)  # type: ignore[method-assign]
    FolderSource.stream = _watched(FolderSource.stream)  # type: ignore[method-assign]


def _watched(original: Callable[..., Any]) -> Callable[..., Any]:
    def watched(self: FolderSource, announced: Any) -> Any:
        if reads := os.environ.get(READS):
            with Path(reads).open("a") as file:
                file.write(f"{announced.key}\n")
        if os.environ[HOLD] == f"read {announced.key}":
            gate(os.environ[HOLD])
        return original(self, announced)

    return watched


def run_command(*arguments: str) -> None:
    """Run `imgflow`."""
    from imgflow.cli.main import main

    sys.argv = ["imgflow", *arguments]
    gate("start")
    main()


def materialize(first: str, last: str) -> None:
    """As an operator in the UI: a run over a range of partitions that bears no batch."""
    project = open_project()
    gate("start")
    sys.exit(0 if project.materialize([first, last]).success else 1)


def run_batches() -> None:
    """What a tick of the sensor asks for."""
    project = open_project()
    result = project.tick()
    gate("start")
    sys.exit(0 if all(run.success for run in project.run_requests(result)) else 1)


def open_project() -> Any:
    from imgflow.orchestration.dagster_storage.instance import open_instance
    from imgflow.settings.variables import load_settings
    from imgflow_tests.orchestration.project import Project

    settings = load_settings(_env_file=None)
    return Project(settings, open_instance(settings, settings.database_url))


ORDERS: dict[str, Callable[..., None]] = {
    "imgflow": run_command,
    "materialize": materialize,
    "batches": run_batches,
}
