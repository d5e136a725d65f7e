"""Serves ASGI apps to clients that may be hostile; the API and Dagster's webserver use it.

The API itself is in `imgflow.api`.
"""
