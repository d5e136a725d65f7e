"""What happens by the clock: backfill, reconciliation, retention."""
