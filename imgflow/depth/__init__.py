"""Depth images as pure functions: rows in, arrays and frames out.

No storage, database, Dagster or HTTP. File formats are in `readers`, stored arrays in
`imgflow.catalog`, photographs in `imgflow.images`.
"""
