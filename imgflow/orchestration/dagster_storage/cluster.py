"""The run launcher of a cluster: Dagster's own for Celery, put right in three things.

With dagster-celery 0.29.27; drop each when Dagster's answers so by itself.
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

# Dagster's own launcher names its task again for each run, of which Celery warns in ten lines.
warnings.filterwarnings("ignore", message="Task name 'execute_job' is already registered")


class ClusterRunLauncher(CeleryRunLauncher):
    """Runs go through the broker to warm workers."""

    def terminate(self, run_id: str) -> bool:
        """Have the worker end a run, or forget it when it waits for one.

        The run becomes canceled; Dagster's own launcher does not say that it is being canceled, so
        that it would look as if it had failed.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Ask the broker; a run of which it knows nothing counts as going on.

        Dagster's own launcher fails it, also when the broker has lost its data and the run goes on;
        its images would then be processed twice. Whether a run of ours lives, the locks of the
        catalogue tell; other jobs have a limit.
        """
        health = super().check_run_worker_health(run)
        status = health.status
        return health._replace(status=type(status).RUNNING) if status.name == "UNKNOWN" else health


# Which runs wait in Dagster's queue: those of people and backfills, not those of the sensor.
#
# The queue is looked at once a second or less often, which is what an upload would wait for longest
# in a cluster. The sensor asks for no more runs than there are workers, so its runs need no queue.


class SensorFirstRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, past which runs of the sensor go straight to the launcher.

    They count for the limits of the queue all the same. A run never is in both places, so nothing
    can launch it twice.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Launch a run of the sensor, or put another one into the queue."""
        run = context.dagster_run
        if BATCH_TAG not in run.tags or run.status != dg.DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        return self._instance.get_run_by_id(run.run_id) or run
