"""Which runs are requested for queued images, what a run does, and what it reports to Dagster."""
