"""The assets of both families, their jobs, and what their pages in Dagster's UI show."""
