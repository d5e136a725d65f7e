"""Dagster's home: its `dagster.yaml`, the environment of its processes, and opening the instance.

The classes that `dagster.yaml` names are in `storages`, `event_log` and `cluster`.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import yaml

from imgflow.catalog.database.engine import with_patience
from imgflow.errors import SettingsError
from imgflow.home import make_folder, make_home
from imgflow.orchestration.families import KIND_TAG
from imgflow.settings.variables import Settings

DATABASE_VARIABLE = "IMGFLOW_DATABASE_URL"
BROKER_VARIABLE = "IMGFLOW_BROKER_URL"

STORAGES = {
    "run_storage": ("imgflow.orchestration.dagster_storage.storages", "ReflectOnceRunStorage"),
    "schedule_storage": ("imgflow.orchestration.dagster_storage.storages", "SteadyScheduleStorage"),
    "event_log_storage": (
        "imgflow.orchestration.dagster_storage.event_log",
        "BulkPostgresEventLogStorage",
    ),
}


CELERY_LAUNCHER = ("imgflow.orchestration.dagster_storage.cluster", "ClusterRunLauncher")

# Dagster's default is five seconds, of which an upload would wait half.
RUN_QUEUE: dict[str, object] = {"dequeue_interval_seconds": 1}

# The digest shows whether somebody has changed the file or it still follows the settings.
HEADER = "# Written by imgflow from its settings ({digest}); change it and it stays yours.\n"

# Celery's settings for the launcher and the workers, which share its app.
CELERY: dict[str, object] = {
    # Otherwise a worker would take a second run to start after its current one, while others are
    # free.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # Dagster formats its own log.
    "worker_redirect_stdouts": False,
    "worker_hijack_root_logger": False,
    # A worker that starts before the broker, or survives its restart, keeps trying.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Dagster's defaults allow a restarting broker less than a second.
    "broker_transport_options": {
        "max_retries": 10,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1.0,
        # Notices a connection that was cut silently.
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
}

# Concurrent runs besides those of images: nightly jobs.
OTHER_RUNS = 4


def instance_config(settings: Settings) -> dict[str, object]:
    """The contents of `dagster.yaml`: all storage in the catalogue's database, no telemetry."""
    storages: dict[str, object] = {
        name: {
            "module": module,
            "class": class_name,
            # The URL stays out of the file: it contains a password, or changes with each start.
            "config": {"postgres_url": {"env": DATABASE_VARIABLE}},
        }
        for name, (module, class_name) in STORAGES.items()
    }
    config: dict[str, object] = {
        **storages,
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},  # the dialog that asks for an e-mail address
        "run_queue": RUN_QUEUE,
        # A sensor's tick may take seconds and must not delay the others.
        "sensors": {"use_threads": True, "num_workers": 4},
        # The code server or the catalogue's locks notice a killed process within seconds; this is
        # for runs that never start or are never canceled. A run may have waited for a worker.
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 180,
            "cancel_timeout_seconds": 180,
            "poll_interval_seconds": 10,
        },
        # Retries runs of people and backfills whose process died. Other failures are due to bad
        # data or trouble; the sensor requests images in trouble again, and those of its dead runs.
        "run_retries": {
            "enabled": True,
            "max_retries": 2,
            "retry_on_asset_or_op_failure": False,
        },
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}}},
    }
    if settings.broker_url:
        del config["run_queue"]
        config.update(_cluster_config(settings.runs))
    return config


def _run_limits(runs: int) -> dict[str, object]:
    """Limits that keep Dagster from launching more runs than there are workers.

    The other runs wait in Dagster's queue, where the time limit for a launched run to start does
    not apply yet.
    """
    return {
        **RUN_QUEUE,
        "max_concurrent_runs": 2 * runs + OTHER_RUNS,
        "tag_concurrency_limits": [
            {"key": KIND_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": runs}
        ],
    }


def _cluster_config(runs: int) -> dict[str, object]:
    """What a cluster adds to `dagster.yaml`: runs go through the broker to warm workers."""
    if find_spec("dagster_celery") is None:
        raise SettingsError(
            f"{BROKER_VARIABLE} is set, and what a cluster needs is not installed: "
            "pip install 'imgflow[cluster]', or unset it."
        )
    return {
        "run_coordinator": {
            "module": "imgflow.orchestration.dagster_storage.cluster",
            "class": "SensorFirstRunCoordinator",
            "config": _run_limits(runs),
        },
        "run_launcher": {
            "module": CELERY_LAUNCHER[0],
            "class": CELERY_LAUNCHER[1],
            "config": {
                "broker": {"env": BROKER_VARIABLE},
                # Run monitoring asks the backend what became of a run.
                "backend": {"env": BROKER_VARIABLE},
                "config_source": CELERY,
            },
        },
        # Machines share no disk: standard output is in the worker's log, and what a run reports is
        # in the event log.
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
    }


def prepare_dagster_home(settings: Settings) -> Path:
    """Write Dagster's home; a `dagster.yaml` that the operator has changed is left alone."""
    home = settings.home / "dagster"
    make_home(settings.home)
    make_folder(home)
    file = home / "dagster.yaml"
    text = _signed(yaml.safe_dump(instance_config(settings), sort_keys=False))
    found = file.read_text() if file.exists() else None
    if found is None or (found != text and _is_as_written(found)):
        new = home / f"dagster.yaml.{os.getpid()}"
        new.write_text(text)
        new.replace(file)  # atomically, since other processes may read it
    return home


def _signed(config: str) -> str:
    return HEADER.format(digest=hashlib.sha256(config.encode()).hexdigest()[:16]) + config


def _is_as_written(text: str) -> bool:
    _, _, config = text.partition("\n")
    return text == _signed(config)


def environment(settings: Settings, database_url: str) -> dict[str, str]:
    """The variables by which all processes of imgflow and Dagster use the same data."""
    return {
        "DAGSTER_HOME": str(prepare_dagster_home(settings)),
        DATABASE_VARIABLE: with_patience(database_url),
        **({BROKER_VARIABLE: settings.broker_url} if settings.broker_url else {}),
        "IMGFLOW_HOME": str(settings.home),
        "IMGFLOW_SOURCE_URL": settings.source_url,
        "IMGFLOW_OUTPUT_URL": settings.output_url,
        # Otherwise gRPC would report the forks of multiprocessing as errors.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        # Dagster evaluates each tick in another thread. glibc gives threads up to eight heaps per
        # core, and each heap stays as large as the largest tick in it.
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
    }


def has_instance(settings: Settings, engine: sa.Engine) -> bool:
    """Whether an instance (its home or its tables) exists already; opening would create one."""
    config = settings.home / "dagster" / "dagster.yaml"
    return config.exists() or sa.inspect(engine).has_table("event_logs")


def open_instance(settings: Settings, database_url: str) -> dg.DagsterInstance:
    """Open the Dagster instance, after setting the variables it needs in this process."""
    os.environ.update(environment(settings, database_url))
    return dg.DagsterInstance.get()


def is_outdated(instance: dg.DagsterInstance) -> bool:
    """Whether Dagster's tables belong to another version than the installed Dagster."""
    storages = (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
    versions = [storage.alembic_version() for storage in storages if storage is not None]
    return any(found is not None and found[0] != found[1] for found in versions)


def check_storage(instance: dg.DagsterInstance) -> None:
    """Raise `SettingsError`, with the fix, if Dagster's tables belong to another version."""
    if is_outdated(instance):
        raise SettingsError(
            "Dagster's tables are of another version of Dagster. End whatever uses them, make a "
            "copy of the database, and call `imgflow migrate`."
        )
