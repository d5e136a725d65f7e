"""Logs and traces, which share one id per upload.

The API's metrics are in `imgflow.api.http.measures` and `imgflow.api.routes.metrics`.
"""
