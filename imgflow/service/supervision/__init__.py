"""Supervises the processes of `imgflow up` and the processing itself, and alerts people.

What is started is decided in `imgflow.service.up`; checks on demand are in `imgflow.doctor`.
"""
