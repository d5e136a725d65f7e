"""Photographs as pure functions: bytes in, bytes out. No storage, database, Dagster or HTTP.

Reading a file's format and opening it is in `formats`; depth images are in `imgflow.depth`.
"""
