"""From queued rows to runs, and what a run does with its images and reports to Dagster."""
