"""Points at which a process of imgflow can be killed, and a server that starts such processes.

A point stands before and after everything that a batch does to the world outside: reads of the
source, writes of outputs, statements and commits of every database connection, Dagster's too. Each
has a name that is the same in every run, such as `main before INSERT INTO event_logs #3`, so a
sweep over all names is complete however the worker processes are scheduled.

`serve` runs in a process of its own that has imported everything and forks for each order, as does
one server of workers beside it, which saves the seconds of every start. Nothing here is imported by
the package.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial, wraps
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.postgres import depth_arrays
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.output_store import OutputStore
from imgflow.work import photographs as worker_module
from imgflow.work.pool import CONTEXT, PRELOADED, PRELOADED_FOR
from imgflow.work.tasks import WorkerConfig
from imgflow_tests.orchestration.crash_states import half_visible, state_of, unvarying

CRASH_AT = "IMGFLOW_CRASH_AT"
"""Name of the point at which the process dies."""
CRASH_TRACE = "IMGFLOW_CRASH_TRACE"
"""File to which every passage through a point is appended."""

PATTERN = re.compile(
    r"INSERT INTO\s+\S+|UPDATE\s+(?!SET\b)\S+|DELETE FROM\s+\S+|pg_advisory_xact_lock|CREATE\s+\w+"
)

_process = ["main"]


def point(name: str) -> None:
    """Pass a point: note its name, and die when this is the one."""
    name = f"{_process[0]} {name}"
    with Path(os.environ[CRASH_TRACE]).open("a+") as trace:
        fcntl.flock(trace, fcntl.LOCK_EX)
        trace.seek(0)
        earlier = trace.read().splitlines()
        count = 1 + sum(line.rpartition(" #")[0] == name for line in earlier)
        name = f"{name} #{count}"
        trace.write(f"{name}\n")
        trace.flush()
        if name != os.environ.get(CRASH_AT):
            return
    if _process[0] == "main":
        os.kill(os.getpid(), signal.SIGKILL)  # the workers are left behind for a moment
    os.killpg(os.getpgrp(), signal.SIGKILL)  # the whole machine
    time.sleep(60)


def install() -> None:
    """Put the points that main process and workers share into this process."""
    _wrap_statements()
    _wrap(FolderSource, "read", lambda _self, upload: f"read {upload.key}")
    _wrap(OutputStore, "put", lambda _self, name, *_: f"put {unvarying(name)}")
    _wrap(OutputStore, "put_first", lambda _self, name, *_: f"put {name}")
    _wrap(OutputStore, "copy", lambda _self, _from, name: f"copy {unvarying(name)}")
    stream = FolderSource.stream

    def streamed(self: FolderSource, announced: Any) -> Iterator[bytes]:
        point(f"before stream {announced.key}")
        for piece in stream(self, announced):
            yield piece
            point(f"within stream {announced.key}")

    FolderSource.stream = streamed  # type: ignore[method-assign]
    blocks = depth_arrays.copy_blocks

    def copied(image_id: int, array: str, chunks: Any) -> Iterator[tuple[Any, int]]:
        for block in blocks(image_id, array, chunks):
            point(f"before COPY depth_chunks of {image_id}")
            yield block
            point(f"after COPY depth_chunks of {image_id}")

    depth_arrays.copy_blocks = copied


def install_main() -> None:
    """Put the points of the process that executes runs into this process."""
    from imgflow.orchestration.dagster_storage import event_rows
    from imgflow.work import batch, pool

    install()
    batch.FLUSH_SECONDS = 1_000.0  # type: ignore[misc]  # else a busy machine changes the names
    _wrap(FolderSource, "list_page", lambda *_: "list")
    _wrap(event_rows, "copy_rows", lambda _connection, table, *_: f"COPY {table}")
    variables = {name: os.environ[name] for name in (CRASH_AT, CRASH_TRACE) if name in os.environ}
    start = partial(start_crashing_worker, variables, os.getpgrp())
    pool.start_worker = start  # type: ignore[attr-defined]  # imported there, not its own


def start_crashing_worker(variables: dict[str, str], group: int, config: WorkerConfig) -> None:
    """Initialise a pool process that has points, and dies with the process that it works for."""
    _process[:] = ["worker"]
    os.environ.update(variables)
    os.setpgid(0, group)
    install()
    worker_module.start_worker(config)


def _wrap(owner: Any, name: str, say: Callable[..., str]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        what = say(*args, **kwargs)
        point(f"before {what}")
        answer = original(*args, **kwargs)
        point(f"after {what}")
        return answer

    setattr(owner, name, wrapped)


def _wrap_statements() -> None:
    """Points around everything that writes, on every connection of SQLAlchemy."""
    writes: dict[int, str] = {}  # of connections with writes that are not committed

    def describe(statement: str) -> str | None:
        found = PATTERN.search(statement)
        return " ".join(found.group().split()) if found else None

    def is_autocommit(connection: sa.Connection) -> bool:
        return bool(connection.connection.dbapi_connection.autocommit)  # type: ignore[union-attr]

    def before(connection: sa.Connection, _c: Any, statement: str, *_: Any) -> None:
        if what := describe(statement):
            point(f"before {what}")
            if not is_autocommit(connection):
                writes[id(connection.connection.dbapi_connection)] = what

    def after(connection: sa.Connection, _c: Any, statement: str, *_: Any) -> None:
        if (what := describe(statement)) and is_autocommit(connection):
            point(f"after {what}")

    sa.event.listen(sa.Engine, "before_cursor_execute", before)
    sa.event.listen(sa.Engine, "after_cursor_execute", after)
    dialect: Any = sa.engine.default.DefaultDialect
    commit = dialect.do_commit

    def commits(self: Any, connection: Any) -> None:
        what = writes.pop(id(getattr(connection, "dbapi_connection", connection)), None)
        if what is None:
            commit(self, connection)
            return
        point(f"before commit of {what}")
        commit(self, connection)
        point(f"after commit of {what}")

    dialect.do_commit = commits


# What the forked processes do ---------------------------------------------------------------------


def open_project() -> Any:
    from imgflow.orchestration.dagster_storage.instance import open_instance
    from imgflow.settings.variables import load_settings
    from imgflow_tests.orchestration.project import Project

    settings = load_settings(_env_file=None)
    return Project(settings, open_instance(settings, settings.database_url))


def ingest_once() -> None:
    """`imgflow ingest`; afterwards the process ends without ceremony."""
    open_project().ingest()


def ingest_with_points() -> None:
    """`imgflow ingest` that dies at a point; an upload is replaced after the listing."""
    from imgflow.service import ingest as ingest_module

    project = open_project()
    install_main()
    list_and_announce = ingest_module.list_and_announce

    def raced(*args: Any, **kwargs: Any) -> Any:
        seen = list_and_announce(*args, **kwargs)
        overwrite_racing(project.source.location.folder)
        return seen

    ingest_module.list_and_announce = raced  # type: ignore[attr-defined]
    project.ingest()


def overwrite_racing(folder: Path) -> None:
    """Replace the upload that arrives anew between listing and reading, once."""
    newer = folder.parent / "racing.jpg"
    if newer.exists():
        newer.replace(folder / "racing.jpg")


def recover() -> None:
    """What is there after the crash, the restart, and what is there then."""
    project = open_project()
    overwrite_racing(project.source.location.folder)
    after_crash = half_visible(project)
    left_over = unfinished_runs(project)
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET not_before = NULL")
    began = time.monotonic()
    report = project.ingest()
    seconds = time.monotonic() - began
    runs = len(project.runs())
    again = project.ingest()
    answer = {
        "after_crash": after_crash,
        "left_over": left_over,
        "unfinished": unfinished_runs(project),
        "seconds": round(seconds, 2),
        "report": report.as_json(),
        "again": {**again.as_json(), "runs": len(project.runs()) - runs},
        "half_visible": half_visible(project),
        "state": state_of(project),
    }
    Path(os.environ["IMGFLOW_TEST_ANSWER"]).write_text(json.dumps(answer))


def unfinished_runs(project: Any) -> int:
    """How many runs look as if they went on."""
    from imgflow.orchestration.runs.liveness import UNFINISHED

    return sum(run.status in UNFINISHED for run in project.runs())


ORDERS: dict[str, Callable[[], None]] = {
    "ingest": ingest_once,
    "crash": ingest_with_points,
    "recover": recover,
}


def start_server_of_workers() -> None:
    """Start the server that the workers of all orders are forked from.

    Each order would start one of its own, and wait for what it imports.
    """
    modules = (*PRELOADED, *PRELOADED_FOR["depth"], __name__)
    CONTEXT.set_forkserver_preload(list(modules))
    answers = os.dup(1)
    os.dup2(2, 1)  # which workers have too, and the answers are no place for what they say
    forkserver.ensure_running()
    os.dup2(answers, 1)
    os.close(answers)


def keep_server_of_workers() -> None:
    """Let this fork use the server, which it would take for dead: it is not its own child."""
    forkserver.ensure_running = lambda: None
    # What connects to it calls the method, not the function.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # private


def serve() -> None:
    """Fork for each order on standard input, and answer with how the process ended."""
    import dagster  # noqa: F401
    import dagster_postgres  # noqa: F401

    import imgflow_tests.orchestration.project  # noqa: F401

    start_server_of_workers()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setpgrp()
            keep_server_of_workers()
            os.environ.update(order["environment"])
            signal.alarm(order["seconds"])  # a process that waits for ever ends with SIGALRM
            code = 1
            try:
                with Path(order["log"]).open("a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                    ORDERS[order["what"]]()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(  # noqa: T201 - the answer
            json.dumps({"group": child, "code": os.waitstatus_to_exitcode(status)}), flush=True
        )
