"""Which runs wait in Dagster's queue: those of people and backfills, not those of the sensor.

The queue is looked at once a second or less often, which is what an upload would wait for longest
in a cluster. The sensor asks for no more runs than there are workers, so its runs need no queue.
"""

from __future__ import annotations

import dagster as dg
from dagster import QueuedRunCoordinator, SubmitRunContext

from imgflow.orchestration.runs.execute import BATCH_TAG


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
