"""Checks of the database: rights, version, schema, connections, clock, and other users of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import sqlalchemy as sa

from imgflow.catalog.database import schema
from imgflow.catalog.database.engine import UP, make_engine, outages_in_words, up_name
from imgflow.doctor.dagster_checks import has_database, running_url
from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.settings.variables import Settings

# A migration sets `autovacuum_vacuum_insert_scale_factor`, which is new in PostgreSQL 13.
LEAST_POSTGRES = 13

# Pauses, retention and run monitoring compare this machine's times with the database's.
MOST_CLOCK_SECONDS = 5.0

# Daemon, code server, Dagster UI, `imgflow up`, and an idle API.
LEAST_CONNECTIONS = 25
# The API's pools at their maximum; event log, runs and catalogue of one run.
API_CONNECTIONS, RUN_CONNECTIONS = 24, 4

LIMITS = """
    SELECT current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int,
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
"""
RIGHTS = """
    SELECT quote_ident(current_user), quote_ident(coalesce(current_schema(), 'public')),
           current_schema() IS NOT NULL
             AND has_schema_privilege(current_user, current_schema(), 'CREATE'),
           (SELECT min(relname) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(current_schema()))
               AND NOT has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE'))
"""


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check everything about the database itself."""
    if not has_database(settings):
        yield ok("database", "the embedded PostgreSQL is made at the first start")
        return
    engine = make_engine(running_url(settings))
    try:
        with outages_in_words(engine), engine.connect() as connection:
            version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
            difference = _clock(connection)
            rights = _rights(connection)
            connections = _connections(connection, settings)
            others = _others(connection, settings)
        yield _version(version // 10_000)
        yield rights
        if rights.state == "ok":
            yield _schema(engine)
        yield connections
        yield others
    finally:
        engine.dispose()
    if abs(difference) > MOST_CLOCK_SECONDS:
        yield wrong(
            "clock",
            f"the database's differs from this machine's by {difference:+.0f} seconds; let both "
            "follow a time server",
        )
    else:
        yield ok("clock", f"it differs from the database's by {abs(difference):.1f} seconds")


def _clock(connection: sa.Connection) -> float:
    before = time.time()
    there = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one()
    return float(there) - (before + time.time()) / 2


def _version(major: int) -> Finding:
    if major < LEAST_POSTGRES:
        return wrong(
            "database",
            f"it is PostgreSQL {major}, and {LEAST_POSTGRES} is needed; upgrade it, or set "
            "IMGFLOW_DATABASE_URL to another",
        )
    return ok("database", f"PostgreSQL {major} answers")


def _rights(connection: sa.Connection) -> Finding:
    user, place, may_create, closed = connection.exec_driver_sql(RIGHTS).one()
    if closed:
        return wrong(
            "rights",
            f"{user} may not read and write the table {closed}, which another user made; "
            f"`GRANT ALL ON ALL TABLES IN SCHEMA {place} TO {user}`, and on its sequences, or let "
            f"{user} own them",
        )
    if not may_create:
        return wrong(
            "rights",
            f"{user} may not create tables, which imgflow and Dagster do at the first start and "
            f"after upgrades; `GRANT USAGE, CREATE ON SCHEMA {place} TO {user}`",
        )
    return ok("rights", f"{user} may create, read and write tables")


def _schema(engine: sa.Engine) -> Finding:
    found, known = schema.current_version(engine), schema.known_versions()
    if found is not None and found not in known:
        return wrong(
            "schema",
            f"it is of a newer imgflow ({found}; this one knows up to {known[0]}); install that, "
            "or set IMGFLOW_DATABASE_URL to another",
        )
    if found == known[0]:
        return ok("schema", f"it is up to date ({found})")
    if found is None:
        return ok("schema", f"it is empty, and the first start brings it to {known[0]}")
    return notice(
        "schema",
        f"it is of an older imgflow ({found}), and the next start brings it to {known[0]}; end "
        "processes of the older one before that",
    )


def _connections(connection: sa.Connection, settings: Settings) -> Finding:
    limits = connection.exec_driver_sql(LIMITS).one()
    most = min(limit for limit in limits if limit >= 0)
    needed = (
        LEAST_CONNECTIONS
        + API_CONNECTIONS
        + settings.runs * (2 * RUN_CONNECTIONS + settings.worker_count)
    )
    said = f"{most} may be open at a time"
    advice = (
        "raise max_connections, or the limit of the role or database (`ALTER ROLE … CONNECTION "
        "LIMIT`), or lower IMGFLOW_RUNS and IMGFLOW_WORKERS"
    )
    if most < LEAST_CONNECTIONS:
        return wrong("connections", f"{said}, and {LEAST_CONNECTIONS} are needed at rest; {advice}")
    if most < needed:
        return notice("connections", f"{said}, and a busy imgflow takes about {needed}; {advice}")
    return ok("connections", f"{said}, a busy imgflow takes about {needed}")


def _others(connection: sa.Connection, settings: Settings) -> Finding:
    names = connection.exec_driver_sql(
        "SELECT DISTINCT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE %s",
        (f"{UP} %",),
    ).scalars()
    others = sorted(set(names) - {up_name(settings.home)})
    if others:
        hosts = ", ".join(name.removeprefix(f"{UP} ").rpartition(" ")[0] for name in others)
        return wrong(
            "instances",
            f"another `imgflow up` (on {hosts}, with another home) works on this database: two "
            "daemons take each other's runs; end one, or give each a database of its own",
        )
    return ok("instances", "no other `imgflow up` works on this database")
