"""Bring the catalogue's schema to this version, however many processes start at once.

The migrations are in `migrations.versions`; the tables that result, in `tables`.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from imgflow.errors import SettingsError

# Dagster's tables may be in the same database, and its version table has Alembic's default name.
VERSION_TABLE = "imgflow_schema_version"

# Any number, if it is the same in every process: the holder of this advisory lock migrates.
MIGRATION_LOCK = 0x696D67666C6F77

LOCK_SECONDS = 5

_migrated: set[str] = set()


def migrate(engine: sa.Engine) -> None:
    """Apply missing migrations; checks once per process and database.

    Raises:
        SettingsError: The database belongs to a newer imgflow.
    """
    url = engine.url.render_as_string(hide_password=False)
    if url in _migrated:
        return
    config = _config()
    known = known_versions()
    found = current_version(engine)
    if found is not None and found not in known:
        raise SettingsError(
            f"The database belongs to a newer imgflow (schema {found}; this one knows up to "
            f"{known[0]}). Install that, or set IMGFLOW_DATABASE_URL to another."
        )
    if found != known[0]:
        _upgrade(engine, config)
    _migrated.add(url)


def _upgrade(engine: sa.Engine, config: Config) -> None:
    with engine.connect() as connection:
        # Held until the connection closes, across Alembic's own transactions.
        connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        # Others queue up behind a lock that waits for a long reader. The time limit gives them
        # their turn, and the migration is retried.
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        connection.commit()
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.exec_driver_sql("RESET lock_timeout")
            connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
            connection.commit()


def known_versions() -> list[str]:
    """The versions that this imgflow knows, newest first."""
    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in scripts.walk_revisions()]


def current_version(engine: sa.Engine) -> str | None:
    """The version of the database; None before the first migration."""
    if not sa.inspect(engine).has_table(VERSION_TABLE):
        return None
    with engine.connect() as connection:
        version: str | None = connection.exec_driver_sql(
            f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - our own constant
        ).scalar()
    return version


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
