"""Serving ASGI apps to clients that may be hostile; used by the API and for Dagster's webserver."""
