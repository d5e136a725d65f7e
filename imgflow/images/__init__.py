"""Pure functions on photographs: bytes in, bytes out. No storage, database, Dagster or HTTP."""
