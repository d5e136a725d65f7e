"""The run launcher and run coordinator of a cluster, based on Dagster's own for Celery.

The launcher works around three things in dagster-celery 0.29.27; drop each workaround once Dagster
behaves so itself. `instance` names both classes in `dagster.yaml`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import QueuedRunCoordinator, SubmitRunContext
from dagster_celery.launcher import CeleryRunLauncher

from imgflow.orchestration.runs.execute import BATCH_TAG

if TYPE_CHECKING:
    import dagster as dg

# Dagster's launcher registers its task again for each run, and Celery warns about it in ten lines.
warnings.filterwarnings("ignore", message="Task name 'execute_job' is already registered")


class ClusterRunLauncher(CeleryRunLauncher):
    """Sends runs through the broker to warm workers."""

    def terminate(self, run_id: str) -> bool:
        """Have the worker end a run, or drop it if it still waits for one.

        The run becomes canceled. Dagster's launcher does not report first that it is being
        canceled, so the run would look as if it had failed.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Ask the broker; a run that it does not know counts as running.

        Dagster's launcher fails such a run, even if the broker lost its data and the run is still
        active; its images would then be processed twice. The catalogue's locks show whether our own
        runs are alive, and other jobs have a time limit.
        """
        health = super().check_run_worker_health(run)
        status = health.status
        return health._replace(status=type(status).RUNNING) if status.name == "UNKNOWN" else health


# Runs of people and backfills wait in Dagster's queue; runs of sensors do not.
#
# Dagster reads the queue once a second at most, which would be an upload's longest wait in a
# cluster. Sensors request no more runs than there are workers, so their runs need no queue.


class SensorFirstRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which runs of sensors bypass on their way to the launcher.

    They still count for the queue's limits. A run is never in both places, so nothing can launch it
    twice.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Launch a run that a sensor requested, or queue any other run."""
        run = context.dagster_run
        if BATCH_TAG not in run.tags or run.status != dg.DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        return self._instance.get_run_by_id(run.run_id) or run
