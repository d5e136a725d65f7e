"""Catalogues as earlier versions left them: their own tables, with images that were processed.

No version was released before 0.1.0, so every schema that a checkout may have made counts. The
tables are made by the migrations up to that version; the rows are those of today without the
columns that it did not have.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command

from imgflow.catalog.database import schema
from imgflow.catalog.database.schema import VERSION_TABLE

VERSIONS = sorted(schema.known_versions())
NEWEST = VERSIONS[-1]

# What depth arrays have said of holes since 0005.
MISSING = ("missing_pixels", "rows_with_missing", "missing_lines")

OWN = "catalogue"  # its row is made with it
LATER = ("revoked", "sensor_ticks")
TABLES = ("images", "depth_chunks", "run_holds", "counters", "unreadable_messages", *LATER, OWN)

COLUMNS = sa.text(
    "SELECT column_name FROM information_schema.columns "
    "WHERE table_schema = :schema AND table_name = :table ORDER BY ordinal_position"
)


def make_schema(engine: sa.Engine, version: str) -> None:
    """Apply the migrations up to a version."""
    config = schema._config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.commit()
    schema._migrated.clear()


def bring_back(engine: sa.Engine, version: str) -> None:
    """Make a catalogue one of an earlier version, which knows the same images."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA later"))
        for table in (*TABLES, VERSION_TABLE):
            connection.execute(sa.text(f"ALTER TABLE {table} SET SCHEMA later"))
        functions = connection.execute(
            sa.text("SELECT oid::regprocedure FROM pg_proc WHERE proname = 'depth_rows'")
        ).scalars()
        for function in functions:
            connection.execute(sa.text(f"DROP FUNCTION {function}"))
    make_schema(engine, version)
    with engine.begin() as connection:
        for table in TABLES:
            columns = ", ".join(f'"{name}"' for name in columns_of(connection, table))
            if columns and table != OWN:
                connection.execute(
                    sa.text(
                        f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE "  # noqa: S608
                        f"SELECT {columns} FROM later.{table}"
                    )
                )
        connection.execute(
            sa.text("SELECT setval(pg_get_serial_sequence('images', 'id'), max(id)) FROM images")
        )
        if version < "0005":
            for fact in MISSING:
                connection.execute(
                    sa.text(f"UPDATE images SET outputs = outputs #- '{{resized,facts,{fact}}}'")  # noqa: S608
                )
        connection.execute(sa.text("DROP SCHEMA later CASCADE"))


def columns_of(connection: sa.Connection, table: str, within: str = "public") -> list[str]:
    return list(connection.execute(COLUMNS, {"schema": within, "table": table}).scalars())


DESCRIPTION = sa.text(
    """
    SELECT 'index', indexname::text, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename = ANY(:tables)
    UNION ALL
    SELECT 'constraint', conname::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE CAST(CAST(conrelid AS regclass) AS text) = ANY(:tables)
    UNION ALL
    SELECT 'column', table_name || '.' || column_name,
        concat_ws(' ', data_type, is_nullable, column_default, collation_name)
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY(:tables)
    UNION ALL
    SELECT 'table', relname::text, array_to_string(reloptions, ' ') FROM pg_class
    WHERE relkind = 'r' AND relname = ANY(:tables)
    UNION ALL
    SELECT 'function', proname::text, prosrc FROM pg_proc WHERE proname = 'depth_rows'
    """
).bindparams(sa.bindparam("tables", list(TABLES), sa.ARRAY(sa.Text)))


def describe(engine: sa.Engine) -> set[tuple[str, ...]]:
    """Everything that the migrations made, in the database's own words."""
    with engine.connect() as connection:
        return {tuple(map(str, row)) for row in connection.execute(DESCRIPTION)}
