"""Dagster's home: its `dagster.yaml`, and the environment that its processes need."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import yaml

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
        # Of a process that is killed the code server or the catalogue's locks tell within seconds;
        # this is for what never starts, or is never canceled.
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 180,
            "cancel_timeout_seconds": 180,
            "poll_interval_seconds": 30,
        },
        # Runs of people and backfills whose process died go on. A run that failed by itself has bad
        # data, or trouble for which the sensor asks again; those that the sensor asked for too.
        "run_retries": {
            "enabled": True,
            "max_retries": 2,
            "retry_on_asset_or_op_failure": False,
        },
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
