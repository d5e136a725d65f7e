"""Dagster's home: its `dagster.yaml`, and the environment that its processes need."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import yaml

from imgflow.errors import SettingsError
from imgflow.settings import Settings

DATABASE_VARIABLE = "IMGFLOW_DATABASE_URL"

STORAGES = {
    "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
    "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
    "event_log_storage": ("imgflow.orchestration.event_log", "BulkPostgresEventLogStorage"),
}


def instance_config() -> dict[str, object]:
    """What `dagster.yaml` says: all storage in the catalogue's database, nothing sent to anyone."""
    storages: dict[str, object] = {
        name: {
            "module": module,
            "class": class_name,
            # The address stays out of the file: it holds a password, or changes from start to
            # start.
            "config": {"postgres_url": {"env": DATABASE_VARIABLE}},
        }
        for name, (module, class_name) in STORAGES.items()
    }
    return {
        **storages,
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},  # the dialog that asks for an e-mail address
        # Five seconds by default, of which an upload would wait half.
        "run_queue": {"dequeue_interval_seconds": 1},
        # A sensor's tick may go on for seconds, which must not keep the others from theirs.
        "sensors": {"use_threads": True, "num_workers": 4},
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 180},
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}}},
    }


def prepare_dagster_home(settings: Settings) -> Path:
    """Write Dagster's home; an existing `dagster.yaml` is the operator's and stays."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        text = yaml.safe_dump(instance_config(), sort_keys=False)
        config.write_text(f"# Written by imgflow at its first start; yours to change.\n{text}")
    return home


def environment(settings: Settings, database_url: str) -> dict[str, str]:
    """The variables that every process of imgflow and Dagster needs to see the same things."""
    return {
        "DAGSTER_HOME": str(prepare_dagster_home(settings)),
        DATABASE_VARIABLE: database_url,
        "IMGFLOW_HOME": str(settings.home),
        "IMGFLOW_SOURCE_URL": settings.source_url,
        "IMGFLOW_OUTPUT_URL": settings.output_url,
        # Dagster's gRPC library would else report forks of multiprocessing as errors.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


def has_instance(settings: Settings, engine: sa.Engine) -> bool:
    """Whether there is anything to open, which to open makes otherwise: a home, or tables."""
    config = settings.home / "dagster" / "dagster.yaml"
    return config.exists() or sa.inspect(engine).has_table("event_logs")


def open_instance(settings: Settings, database_url: str) -> dg.DagsterInstance:
    """Open the Dagster instance in this process."""
    os.environ.update(environment(settings, database_url))
    return dg.DagsterInstance.get()


def is_outdated(instance: dg.DagsterInstance) -> bool:
    """Whether Dagster's tables are of another version than the Dagster that is installed."""
    storages = (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
    versions = [storage.alembic_version() for storage in storages if storage is not None]
    return any(found is not None and found[0] != found[1] for found in versions)


def check_storage(instance: dg.DagsterInstance) -> None:
    """Raise `SettingsError`, which says what to do, where Dagster's tables are outdated."""
    if is_outdated(instance):
        raise SettingsError(
            "Dagster's tables are of another version of Dagster. End whatever uses them, make a "
            "copy of the database, and call `imgflow migrate`."
        )
