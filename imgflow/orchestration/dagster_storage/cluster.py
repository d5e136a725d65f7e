"""The run launcher of a cluster: Dagster's own for Celery, put right in three things.

With dagster-celery 0.29.27; drop each when Dagster's answers so by itself.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dagster_celery.launcher import CeleryRunLauncher

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
