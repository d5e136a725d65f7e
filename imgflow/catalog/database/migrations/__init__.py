"""Alembic migrations of the catalogue, applied at start."""
