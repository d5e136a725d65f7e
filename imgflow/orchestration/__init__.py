"""Everything that uses Dagster: assets, checks, sensors, jobs, runs and storages.

What needs no Dagster belongs elsewhere, such as processing images in `imgflow.work`.
"""
