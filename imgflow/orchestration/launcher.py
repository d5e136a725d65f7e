"""The run launcher of a cluster: Dagster's own for Celery, which forgets to say that it cancels."""

from __future__ import annotations

from dagster_celery.launcher import CeleryRunLauncher


class CancelingCeleryRunLauncher(CeleryRunLauncher):
    """A run that somebody terminates becomes canceled.

    With dagster-celery 0.29.27 alone it looks as if it had failed. Drop this when its `terminate`
    reports that the run is being canceled, as those of Dagster's other launchers do.
    """

    def terminate(self, run_id: str) -> bool:
        """Have the worker end a run, or forget it when it waits for one."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)
