"""Pure functions on photographs: bytes in, bytes out. No storage, no database, no Dagster, no HTTP."""
