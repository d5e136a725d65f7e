"""The nightly jobs: backfill of stale images, reconciliation, retention of events."""
