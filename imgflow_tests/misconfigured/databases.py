"""Databases in which something is wrong: reach, rights, schema, others who work on it."""

# ruff: noqa: ARG001 - all arrangements take the same arguments

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgflow.catalog.database.engine import make_engine, up_name
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow_tests.ceph import free_port
from imgflow_tests.misconfigured.case import Case, Fixture, Misconfigurations

DATABASES = Misconfigurations()
wrong = DATABASES.wrong


def migrate(case: Case) -> None:
    engine = make_engine(case.database_url)
    PostgresCatalog(engine, "file:///").migrate()
    engine.dispose()


@wrong("the database does not answer", "IMGFLOW_DATABASE_URL")
def no_database(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["database_url"] = f"postgresql://imgflow:s3cr3t@127.0.0.1:{free_port()}/imgflow"
    yield


@wrong("wrong password of the database", "user and password")
def wrong_password(case: Case, fixture: Fixture) -> Iterator[None]:
    rules = Path(case.sql("SHOW hba_file"))
    before = rules.read_text()
    with case.role("locked", "PASSWORD 'right'"):
        rules.write_text(
            f"local all locked scram-sha-256\nhost all locked all scram-sha-256\n{before}"
        )
        case.sql("SELECT pg_reload_conf()")
        case.use_role("locked", "s3cr3t")
        try:
            yield
        finally:
            rules.write_text(before)
            case.sql("SELECT pg_reload_conf()")


@wrong("the database's user may not create tables", "GRANT USAGE, CREATE")
def no_tables(case: Case, fixture: Fixture) -> Iterator[None]:
    with case.role("tenant"):
        case.use_role("tenant")
        yield


@wrong("the tables belong to another user", "GRANT ALL ON ALL TABLES")
def foreign_tables(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    with case.role("tenant"):
        case.sql("GRANT CREATE ON SCHEMA public TO tenant")
        case.use_role("tenant")
        yield


@wrong("too few connections to the database", "CONNECTION LIMIT")
def few_connections(case: Case, fixture: Fixture) -> Iterator[None]:
    with case.role("tenant", "CONNECTION LIMIT 10"):
        case.sql("GRANT CREATE ON SCHEMA public TO tenant")
        case.use_role("tenant")
        yield


@wrong("the clocks of database and machine differ", "time server")
def database_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    from imgflow.doctor import database_checks

    now = database_checks.time.time
    case.environment.setattr(database_checks.time, "time", lambda: now() - 60)
    yield


@wrong("the schema is of an older imgflow", "next start brings it")
def older_schema(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    case.sql("UPDATE imgflow_schema_version SET version_num = '0002'")
    yield


@wrong("the schema is of a newer imgflow", "install that")
def newer_schema(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    case.sql("UPDATE imgflow_schema_version SET version_num = '9999'")
    yield


@wrong("another `imgflow up` works on the same database", "database of its own")
def two_instances(case: Case, fixture: Fixture) -> Iterator[None]:
    other = make_engine(case.database_url, application=up_name(Path("/elsewhere")))
    with other.connect():
        yield
    other.dispose()
