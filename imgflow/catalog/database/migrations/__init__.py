"""Alembic migrations of the catalogue, applied at start by `catalog.database.schema`."""
