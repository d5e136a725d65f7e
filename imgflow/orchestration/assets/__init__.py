"""The assets of both families, and what their pages in Dagster's UI say."""
