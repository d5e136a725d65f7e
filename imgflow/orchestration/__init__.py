"""Everything that speaks Dagster, and nothing else."""
