"""Pure functions on depth images: rows in, arrays and frames out.

No storage, no database, no Dagster, no HTTP.
"""
