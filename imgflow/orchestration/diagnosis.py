"""What `imgflow doctor` asks the database, Dagster's storage and the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import sqlalchemy as sa
import yaml

from imgflow.catalog import schema
from imgflow.catalog.connecting import database_url, make_engine, outages_in_words
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.errors import SettingsError
from imgflow.orchestration.instance import (
    STORAGES,
    check_storage,
    has_instance,
    open_instance,
)
from imgflow.orchestration.queue import SqsQueue
from imgflow.orchestration.unfinished import UNFINISHED
from imgflow.settings import Settings
from imgflow.store.opening import StoreConfig

# A migration sets `autovacuum_vacuum_insert_scale_factor`, which 13 is the first to know.
LEAST_POSTGRES = 13

# Pauses, retention and run monitoring compare times of this machine with those of the database.
MOST_CLOCK_SECONDS = 5.0

# Daemons say every 30 seconds that they live.
HEARTBEAT_SECONDS = 120.0

# Runs start within seconds; a queue of them waits longer, but not without any that goes on.
START_SECONDS = 600.0

# Several checks at once may be the first to need the embedded server.
_starting = threading.Lock()

Line = tuple[str, Literal["ok", "notice", "wrong"], str]
"""Part, state and text of a finding."""


def has_database(settings: Settings) -> bool:
    """Whether there is a database; the embedded one is made at the first start."""
    return bool(settings.database_url) or (settings.home / "postgres").is_dir()


def _url(settings: Settings) -> str:
    with _starting:
        return database_url(settings)


def check_database(settings: Settings) -> Iterator[Line]:
    """Version, schema and clock of the database."""
    if not has_database(settings):
        yield "database", "ok", "the embedded PostgreSQL is made at the first start"
        return
    engine = make_engine(_url(settings))
    try:
        with outages_in_words(engine), engine.connect() as connection:
            version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
            before = time.time()
            there = float(
                connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar()
                or 0
            )
            difference = there - (before + time.time()) / 2
        yield _version(version // 10_000)
        yield _schema(engine)
    finally:
        engine.dispose()
    if abs(difference) > MOST_CLOCK_SECONDS:
        yield (
            "clock",
            "wrong",
            f"the database's differs from this machine's by {difference:+.0f} seconds; let both "
            "follow a time server",
        )
    else:
        yield "clock", "ok", f"it differs from the database's by {abs(difference):.1f} seconds"


def _version(major: int) -> Line:
    if major < LEAST_POSTGRES:
        return (
            "database",
            "wrong",
            f"it is PostgreSQL {major}, and {LEAST_POSTGRES} is needed; upgrade it, or set "
            "IMGFLOW_DATABASE_URL to another",
        )
    return "database", "ok", f"PostgreSQL {major} answers"


def _schema(engine: sa.Engine) -> Line:
    found, known = schema.current_version(engine), schema.known_versions()
    if found is not None and found not in known:
        return (
            "schema",
            "wrong",
            f"it is of a newer imgflow ({found}; this one knows up to {known[0]}); install that, "
            "or set IMGFLOW_DATABASE_URL to another",
        )
    if found == known[0]:
        return "schema", "ok", f"it is up to date ({found})"
    return "schema", "ok", f"it is {found or 'empty'}, and the next start brings it to {known[0]}"


def check_configuration(settings: Settings) -> Iterator[Line]:
    """Whether `dagster.yaml` names what runs over many partitions need."""
    file = settings.home / "dagster" / "dagster.yaml"
    if not file.exists():
        yield "dagster.yaml", "ok", "it is written at the first start"
        return
    yield _configuration(file)


def _configuration(file: Path) -> Line:
    mend = f"mend {file}, or delete it: the next start writes it anew"
    try:
        config: Any = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        return "dagster.yaml", "wrong", f"it is no YAML ({line}); {mend}"
    config = config if isinstance(config, dict) else {}
    wanted = STORAGES["event_log_storage"][1]
    if (config.get("event_log_storage") or {}).get("class") != wanted:
        return (
            "dagster.yaml",
            "wrong",
            f"event_log_storage is not {wanted}, so an image costs 20 times as long; {mend}",
        )
    if not (config.get("run_monitoring") or {}).get("enabled"):
        return (
            "dagster.yaml",
            "wrong",
            f"run_monitoring is not enabled, so runs that never start stay for ever; {mend}",
        )
    return "dagster.yaml", "ok", "bulk event log and run monitoring"


def check_dagster(settings: Settings, process: str | None) -> Iterator[Line]:
    """Dagster's storage, daemon, sensors and runs.

    Args:
        settings: of this project.
        process: id of the `imgflow up` that runs; None when none does.
    """
    if not has_database(settings):
        yield "dagster", "ok", "its storage is made at the first start"
        return
    url = _url(settings)
    engine = make_engine(url)
    try:
        with outages_in_words(engine):
            is_made = has_instance(settings, engine)
        if not is_made:
            yield "dagster", "ok", "its storage is made at the first start"
            return
        with open_instance(settings, url) as instance:
            storage = _storage(instance)
            yield storage
            if storage[1] == "wrong":
                return  # the questions below are of today's tables
            yield _daemon(instance, process)
            yield from _sensors(instance)
            yield _runs(instance, settings, engine)
    finally:
        engine.dispose()


def _storage(instance: dg.DagsterInstance) -> Line:
    try:
        check_storage(instance)
    except SettingsError as error:
        return "dagster", "wrong", str(error)
    return "dagster", "ok", "its storage opens and is up to date"


def _daemon(instance: dg.DagsterInstance, process: str | None) -> Line:
    beats = [
        status.last_heartbeat.timestamp
        for status in instance.get_daemon_statuses().values()
        if status.last_heartbeat
    ]
    age = time.time() - max(beats) if beats else None
    if age is not None and age < HEARTBEAT_SECONDS:
        return "daemon", "ok", f"its last heartbeat is {age:.0f} seconds old"
    said = f"its last heartbeat is {age / 60:.0f} minutes old" if age else "it has never run"
    if process:
        return (
            "daemon",
            "wrong",
            f"{said} although `imgflow up` runs; see daemon.log in the logs, and start it "
            "again if this is more than two minutes ago",
        )
    return "daemon", "notice", f"{said}; uploads wait for `imgflow up` or `imgflow ingest`"


def _sensors(instance: dg.DagsterInstance) -> Iterator[Line]:
    for state in instance.all_instigator_state():
        what = f"{state.instigator_type.value.lower()} {state.instigator_name}"
        if state.status.value == "STOPPED":
            yield what, "notice", "somebody stopped it; start it in the UI under Automation"
        else:
            yield what, "ok", "it runs"


def _runs(instance: dg.DagsterInstance, settings: Settings, engine: sa.Engine) -> Line:
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    abandoned: set[str] = set()
    if schema.current_version(engine) == schema.known_versions()[0]:
        source, _ = StoreConfig(settings.source_url, settings.output_url).locations()
        holds = PostgresCatalog(engine, source.url).holds
        abandoned = {hold.run_id for hold in holds.abandoned()}
    late, dead, going = [], [], 0
    for record in records:
        run = record.dagster_run
        is_late = time.time() - record.create_timestamp.timestamp() > START_SECONDS
        if run.run_id in abandoned:
            dead.append(run.run_id)
        elif record.start_time is None and is_late:
            late.append(run.run_id)
        else:
            going += 1
    if late and not going:
        return (
            "runs",
            "wrong",
            f"{len(late)} wait for more than ten minutes to start, {late[0]} among them; see that "
            "the daemon runs, or cancel them in the UI",
        )
    if dead:
        return (
            "runs",
            "notice",
            f"{len(dead)} lost their process, {dead[0]} among them; the next tick or `imgflow "
            "ingest` marks them failed and goes on",
        )
    return "runs", "ok", f"{len(records)} queued or going on" if records else "none is going on"


def check_queue(settings: Settings) -> Iterator[Line]:
    """Whether the queue answers and lets us receive."""
    if not settings.sqs_queue_url:
        yield "queue", "ok", "none is set; the listing finds uploads"
        return
    queue = SqsQueue(settings.sqs_queue_url, wait_seconds=0, most_messages=1, most_seconds=5)
    queue.check()
    yield "queue", "ok", f"{settings.sqs_queue_url} answers and may be received from"
