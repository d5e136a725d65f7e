"""Dagster's launcher of a cluster, which does not take a silent broker for a lost run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_celery.launcher import CeleryRunLauncher

if TYPE_CHECKING:
    import dagster as dg


class WarmRunLauncher(CeleryRunLauncher):
    """Runs go through the broker to warm workers.

    Dagster fails a run of which its broker knows nothing, also when that has lost its data and the
    run goes on; its images would then be processed twice. Whether a run of ours lives, the locks of
    the catalogue tell; other jobs have a limit.
    """

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Ask the broker; a run of which it knows nothing counts as going on."""
        health = super().check_run_worker_health(run)
        status = health.status
        return health._replace(status=type(status).RUNNING) if status.name == "UNKNOWN" else health
