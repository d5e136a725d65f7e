"""The Celery app of a worker: `celery -A imgflow.service.celery_app worker -Q QUEUE`.

It is the app of Dagster's own run launcher, as the instance's `dagster.yaml` configures it, with
Dagster's own tasks. `dagster-celery worker start` would do the same from a second file, write the
broker's password into a third, and pass no signal on to the worker, so that no run could end well
when its container is stopped.

Importing this imports the definitions too, once: each run is executed in a process forked
from here, which finds them loaded.
"""

from __future__ import annotations

import importlib
from multiprocessing import process

from celery import Celery
from celery.signals import setup_logging, worker_process_init
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

import imgflow.definitions  # noqa: F401 - for the processes that are forked; it sets up logs
from imgflow.catalog.database.engine import database_url
from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import BROKER_VARIABLE, open_instance
from imgflow.settings.variables import Settings, load_settings
from imgflow.work.pool import prepare_workers


def make_app(settings: Settings) -> Celery:
    """Make the app of the launcher that this machine's Dagster home names.

    Raises:
        SettingsError: it names another launcher.
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
    """Take Celery's own set-up of logs away, as whoever is connected does; ours stands already."""


_settings = load_settings()
app = make_app(_settings)
if _settings.log_format == "json":
    setup_logging.connect(keep_logs)

if _settings.stores.is_remote:
    importlib.import_module(
        "imgflow.store.s3.source_bucket"
    )  # and boto3, for the processes that are forked

_ORDINARY = process.current_process()


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def be_an_ordinary_process(**_: object) -> None:
    """Let a run have worker processes, which Celery's own processes may not have.

    Celery's fork of multiprocessing puts its object for this process, a daemonic one with a key
    that cannot be sent, in the place of the standard library's.
    """
    process._current_process = _ORDINARY  # type: ignore[attr-defined]  # private, see above


@worker_process_init.connect  # type: ignore[untyped-decorator]  # as above
def import_ahead(**_: object) -> None:
    """Let what processes images be imported now; the first run would wait for it for a second."""
    # Queues have the names of kinds.
    prepare_workers(_settings.stores, app.amqp.queues.consume_from)
