"""How images are processed in worker processes, without Dagster; runs and the API share it."""
