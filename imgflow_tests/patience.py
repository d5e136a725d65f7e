"""How long tests wait for what other processes do."""

PATIENCE_SECONDS = 240
"""Only what never happens is waited for so long; a machine may be five times as slow as another."""
