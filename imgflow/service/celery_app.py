"""The Celery app of a worker: `celery -A imgflow.service.celery_app worker -Q QUEUE`.

It is the app of Dagster's own run launcher, configured by the instance's `dagster.yaml`, with
Dagster's own tasks. `dagster-celery worker start` would do the same from a second file, but it
writes the broker's password into a third and passes no signals on to the worker, so no run could
end cleanly when its container stops.

Importing this also imports the definitions once: each run executes in a process forked from here,
which finds them loaded.
"""

from __future__ import annotations

import importlib
from multiprocessing import process

from celery import Celery
from celery.signals import setup_logging, worker_process_init
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

import imgflow.definitions  # noqa: F401 - for the forked processes; it sets up logs
from imgflow.catalog.database.engine import database_url
from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import BROKER_VARIABLE, open_instance
from imgflow.settings.variables import Settings, load_settings
from imgflow.work.pool import prepare_workers


def make_app(settings: Settings) -> Celery:
    """Make the app of the run launcher in this machine's Dagster home.

    Raises:
        SettingsError: The home has a different run launcher.
    """
    with open_instance(settings, database_url(settings)) as instance:
        launcher = instance.run_launcher
    if not isinstance(launcher, CeleryRunLauncher):
        raise SettingsError(
            f"A worker needs {BROKER_VARIABLE} and a dagster.yaml with the CeleryRunLauncher; the "
            f"one in {settings.home / 'dagster'} has {type(launcher).__name__}."
        )
    app = launcher.celery
    create_execute_job_task(app)
    create_resume_job_task(app)
    return app


def keep_logs(**_: object) -> None:
    """Do nothing: any receiver of `setup_logging` disables Celery's own setup, and ours is done."""


_settings = load_settings()
app = make_app(_settings)
if _settings.log_format == "json":
    setup_logging.connect(keep_logs)

if _settings.stores.is_remote:
    importlib.import_module(
        "imgflow.store.s3.source_bucket"
    )  # imports boto3 too, for the forked processes

_ORDINARY = process.current_process()


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def be_an_ordinary_process(**_: object) -> None:
    """Let a run start worker processes, which Celery's own processes may not.

    Celery's fork of multiprocessing replaces the standard library's object for this process by its
    own, which is daemonic and has a key that cannot be pickled.
    """
    process._current_process = _ORDINARY  # type: ignore[attr-defined]  # private, see above


@worker_process_init.connect  # type: ignore[untyped-decorator]  # as above
def import_ahead(**_: object) -> None:
    """Import what processes images now, since it would delay the first run by a second."""
    # Queues are named after kinds.
    prepare_workers(_settings.stores, app.amqp.queues.consume_from)
