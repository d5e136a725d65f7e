from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from imgflow.catalog.database import schema
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.database.tables import metadata
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.errors import SettingsError
from imgflow_tests.catalog.migrating import migrate_at_once

NEWEST = ScriptDirectory.from_config(schema._config()).get_current_head()


def test_migrating_twice_changes_nothing(catalog: PostgresCatalog) -> None:
    assert schema.current_version(catalog.engine) == NEWEST
    schema._migrated.clear()
    catalog.migrate()
    assert schema.current_version(catalog.engine) == NEWEST


def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    migrate_at_once(database_url)
    engine = make_engine(database_url)
    PostgresCatalog(engine, "file:///in/").check()
    assert schema.current_version(engine) == NEWEST
    engine.dispose()


def test_a_database_of_a_newer_imgflow_is_left_alone(catalog: PostgresCatalog) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(sa.text("UPDATE imgflow_schema_version SET version_num = '9999'"))
    schema._migrated.clear()
    with pytest.raises(SettingsError, match=r"schema 9999.*IMGFLOW_DATABASE_URL"):
        catalog.migrate()


def test_the_migrations_make_the_tables_that_the_code_knows(catalog: PostgresCatalog) -> None:
    inspector = sa.inspect(catalog.engine)
    for table in metadata.tables.values():
        found = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert set(found) == {column.name for column in table.columns}
        for column in table.columns:
            is_nullable = found[column.name]["nullable"]
            assert is_nullable == column.nullable, f"{table.name}.{column.name}"
            compiled = column.type.compile(catalog.engine.dialect)
            assert found[column.name]["type"].compile(catalog.engine.dialect) == compiled
        indexes = {index["name"] for index in inspector.get_indexes(table.name)}
        assert {index.name for index in table.indexes} <= indexes


def test_keys_are_sorted_as_s3_lists_them(catalog: PostgresCatalog) -> None:
    keys = ["a", "B", "ä", "a-b", "a/b", "a.b", "😀", "\uffff", "Z"]
    with catalog.engine.connect() as connection:
        rows = connection.execute(
            sa.text('SELECT k FROM unnest(:keys) AS u(k) ORDER BY k COLLATE "C"').bindparams(
                sa.bindparam("keys", keys, sa.ARRAY(sa.Text))
            )
        ).scalars()
        assert list(rows) == sorted(keys, key=str.encode)
    with catalog.engine.connect() as connection:
        collation = connection.execute(
            sa.text(
                "SELECT collation_name FROM information_schema.columns "
                "WHERE table_name = 'images' AND column_name = 'key'"
            )
        ).scalar()
    assert collation == "C"
