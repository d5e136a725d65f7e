"""Checks of Dagster: its `dagster.yaml`, storage, daemon, sensors and runs.

The database below it is checked in `database_checks`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import sqlalchemy as sa
import yaml

from imgflow.catalog.database import schema
from imgflow.catalog.database.engine import database_url, make_engine, outages_in_words
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import Pulse, read_pulse, sensor_names
from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import (
    CELERY_LAUNCHER,
    STORAGES,
    check_storage,
    has_instance,
    open_instance,
)
from imgflow.orchestration.runs.liveness import UNFINISHED
from imgflow.settings.variables import Settings

# Daemons write a heartbeat every 30 seconds.
HEARTBEAT_SECONDS = 120.0

# Runs start within seconds; queued ones wait longer, but only while others are in progress.
START_SECONDS = 600.0

# Several concurrent checks may be the first to need the embedded server.
_starting = threading.Lock()

State = Literal["ok", "notice", "wrong"]
Line = tuple[str, State, str]
"""Part, state and text of a finding."""


def has_database(settings: Settings) -> bool:
    """Return whether there is a database; the embedded one is made at the first start."""
    return bool(settings.database_url) or (settings.home / "postgres").is_dir()


def running_url(settings: Settings) -> str:
    """Return the database's URL; the first caller starts the embedded database."""
    with _starting:
        return database_url(settings)


def check_configuration(settings: Settings) -> Iterator[Line]:
    """Check that `dagster.yaml` configures what runs over many partitions need."""
    file = settings.home / "dagster" / "dagster.yaml"
    if not file.exists():
        yield "dagster.yaml", "ok", "it is written at the first start"
        return
    yield _configuration(file, settings)


def _configuration(file: Path, settings: Settings) -> Line:
    advice = f"fix {file}, or delete it: the next start writes it anew"
    try:
        config: Any = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        return "dagster.yaml", "wrong", f"it is no YAML ({line}); {advice}"
    faults = _faults(config if isinstance(config, dict) else {}, settings)
    for state, fault in faults:
        return "dagster.yaml", state, f"{fault}; {advice}"
    return "dagster.yaml", "ok", "bulk event log, run monitoring and run retries"


def _faults(config: dict[str, Any], settings: Settings) -> Iterator[tuple[State, str]]:
    """Yield what in `dagster.yaml` does not work with imgflow, the worst first."""
    wanted = STORAGES["event_log_storage"][1]
    if (config.get("event_log_storage") or {}).get("class") != wanted:
        yield "wrong", f"event_log_storage is not {wanted}, so an image costs 20 times as long"
    runs = (config.get("concurrency") or {}).get("runs") or {}
    most = {**(config.get("run_queue") or {}), **runs}.get("max_concurrent_runs")
    if most == 0:
        yield "wrong", "max_concurrent_runs is 0, so every run waits in the queue for ever"
    if not (config.get("run_monitoring") or {}).get("enabled"):
        yield "wrong", "run_monitoring is not enabled, so runs that never start stay for ever"
    is_cluster = (config.get("run_launcher") or {}).get("class") == CELERY_LAUNCHER[1]
    if is_cluster != bool(settings.broker_url):
        there = "is" if is_cluster else "is not"
        broker = "set" if settings.broker_url else "not set"
        yield (
            "wrong",
            f"run_launcher {there} {CELERY_LAUNCHER[1]}, and IMGFLOW_BROKER_URL is {broker}",
        )
    if not (config.get("run_retries") or {}).get("enabled"):
        yield (
            "notice",
            "run_retries is not enabled, so runs of people whose process dies end there",
        )


def check_dagster(settings: Settings, process: str | None) -> Iterator[Line]:
    """Check Dagster's storage, daemon, sensors and runs.

    `process` is the process id of the running `imgflow up`, or None if none runs.
    """
    if not has_database(settings):
        yield "dagster", "ok", "its storage is made at the first start"
        return
    url = running_url(settings)
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
                return  # the queries below need up-to-date tables
            daemon = _daemon(instance, process)
            yield daemon
            is_at_work = bool(process) or daemon[1] == "ok"
            yield from _sensors(instance, _pulse(settings, engine), is_at_work=is_at_work)
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


def _pulse(settings: Settings, engine: sa.Engine) -> Pulse:
    """Read the health of the sensors; empty if the schema awaits a migration at the next start."""
    if schema.current_version(engine) != schema.known_versions()[0]:
        return Pulse()
    source, _ = settings.stores.locations()
    return read_pulse(engine, source.url, sensor_names(settings))


def _sensors(instance: dg.DagsterInstance, pulse: Pulse, *, is_at_work: bool) -> Iterator[Line]:
    silent = {sensor.name: sensor for sensor in pulse.silent}
    for state in instance.all_instigator_state():
        what = f"{state.instigator_type.value.lower()} {state.instigator_name}"
        if state.status.value == "STOPPED":
            yield what, "notice", "somebody stopped it; start it in the UI under Automation"
        elif sensor := silent.get(state.instigator_name):
            yield (
                what,
                "wrong" if is_at_work else "notice",  # expected if imgflow was stopped on purpose
                f"new uploads are not seen. {sensor.words()} See daemon.log and code-server.log",
            )
        else:
            yield what, "ok", "it runs"


def _runs(instance: dg.DagsterInstance, settings: Settings, engine: sa.Engine) -> Line:
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    abandoned: set[str] = set()
    if schema.current_version(engine) == schema.known_versions()[0]:
        source, _ = settings.stores.locations()
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
