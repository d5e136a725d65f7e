"""Connections to PostgreSQL: bounded pools and waits, retries, and outages as `Trouble`.

`Connected`, the base of all parts of the catalogue, adds the source whose rows they use.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import sqlalchemy as sa
from psycopg2.errors import ProgramLimitExceeded, ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from imgflow.catalog.database.embedded_postgres import embedded_postgres
from imgflow.catalog.records import Image, image_of
from imgflow.errors import Trouble
from imgflow.settings.variables import Settings

Answer = TypeVar("Answer")
UP = "imgflow up"
logger = logging.getLogger(__name__)

# A database that restarts is back within seconds; callers retry longer outages.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)

# A side that vanishes silently is given up after 25 seconds. By default, a client that has sent
# something waits for 15 minutes, and a server keeps locks for two hours.
CLIENT_PATIENCE: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
SERVER_PATIENCE = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; "
    "SET tcp_keepalives_count = 3; SET tcp_user_timeout = 25000"
)


def database_url(settings: Settings) -> str:
    """URL of the configured database; an embedded one runs from now until this process ends."""
    return settings.database_url or embedded_postgres(settings.home).url


def up_name(home: Path) -> str:
    """Application name of the connections of `imgflow up`: says which home on which machine."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return f"{UP} {socket.gethostname()[:32]} {digest}"


def make_engine(
    url: str,
    *,
    pool_size: int = 2,
    max_overflow: int = 2,
    pool_seconds: float = 10.0,
    pre_ping: bool = True,
    application: str = "imgflow",
) -> sa.Engine:
    """Make an engine; nothing is connected yet.

    Args:
        url: URL of the database, including credentials.
        pool_size: Number of connections that are kept open.
        max_overflow: Number of further connections, opened while they are needed.
        pool_seconds: How long to wait for a connection while all are in use.
        pre_ping: Check each connection before it is used. This costs a round trip, and `retried`
            replaces broken connections anyway.
        application: Name that the database shows for these connections.
    """
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_seconds,
        pool_pre_ping=pre_ping,
        connect_args={**CLIENT_PATIENCE, "application_name": application},
    )
    bound_server(engine)
    return engine


def bound_server(engine: sa.Engine) -> None:
    """Let the server release what connections hold soon after the client's machine vanishes."""

    @sa.event.listens_for(engine, "connect")
    def _set(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(SERVER_PATIENCE)
        connection.commit()


def bounded(engine: sa.Engine, seconds: float) -> sa.Engine:
    """The same connections, with a time limit for each statement, including waits for locks."""
    own = engine.execution_options()

    @sa.event.listens_for(own, "begin")
    def _bound(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(1_000 * seconds)}")

    return own


def with_patience(url: str) -> str:
    """A database URL for Dagster's own storages, with bounded waits like those of `make_engine`."""
    parsed = sa.make_url(url)
    if not parsed.host:  # a Unix socket
        return url
    missing = {name: str(value) for name, value in CLIENT_PATIENCE.items()}
    wanted = {**missing, **parsed.query}
    return parsed.set(query=wanted).render_as_string(hide_password=False)


def retried(engine: sa.Engine, work: Callable[[], Answer]) -> Answer:
    """Run a repeatable transaction, with retries until the database answers or patience runs out.

    Raises:
        Trouble: The database did not answer; the message has its host, never its password.
    """
    for wait in (*RETRY_SECONDS, None):
        try:
            return work()
        except (SQLAlchemyError, psycopg2.Error) as error:  # the driver's own come from a COPY
            if not is_outage(error):
                raise
            if isinstance(error, PoolTimeout):  # it has waited already, and so have others
                raise Trouble("All connections to the database are in use.") from error
            if wait is None:
                raise Trouble(_explain(engine, error)) from error
            logger.warning("%s It is tried again in %.1f s.", _explain(engine, error), wait)
            time.sleep(wait)
    raise AssertionError("the last round returns or raises")


@contextmanager
def outages_in_words(engine: sa.Engine) -> Iterator[None]:
    """Turn outages into `Trouble`, including those that direct use of the driver raises.

    For work that must not simply run again; for work that may, see `retried`.
    """
    try:
        yield
    except (SQLAlchemyError, psycopg2.Error) as error:
        if not is_outage(error):
            raise
        raise Trouble(_explain(engine, error)) from error


def is_outage(error: Exception) -> bool:
    """Whether the database was unavailable, as opposed to having refused a statement."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, ProgramLimitExceeded):  # too large, and always will be
        return False
    if isinstance(cause, ReadOnlySqlTransaction):  # a failover, or its disk became read-only
        return True
    return isinstance(cause, (psycopg2.OperationalError, psycopg2.InterfaceError))


def _explain(engine: sa.Engine, error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    password = engine.url.password
    cause = lines[0] if lines else type(error).__name__
    if password:
        cause = cause.replace(str(password), "***")
    url = engine.url.difference_update_query(CLIENT_PATIENCE)
    return (
        f"The database {url.render_as_string(hide_password=True)} does not answer: {cause}. "
        f"{_advice(cause)}"
    )


def _advice(cause: str) -> str:
    if "password" in cause or ("role" in cause and "does not exist" in cause):
        return "Correct user and password in IMGFLOW_DATABASE_URL."
    if "too many connections" in cause or "connection slots" in cause:
        return "Raise max_connections or the CONNECTION LIMIT of role and database."
    if "does not exist" in cause:
        return "Create it, or correct IMGFLOW_DATABASE_URL."
    return "Check that it runs, and IMGFLOW_DATABASE_URL."


# The base of all parts of the catalogue: a database and a source.


TEXT, BIGINT, INT = sa.ARRAY(sa.Text), sa.ARRAY(sa.BigInteger), sa.ARRAY(sa.Integer)
TIME = sa.ARRAY(sa.DateTime(timezone=True))


class Connected:
    """An engine, and the source whose rows are used."""

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the source's canonical URL; nothing is connected yet."""
        self.engine = engine
        self.source = source

    def transaction(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        """Run work in a transaction that may safely run again.

        Raises:
            Trouble: The database did not answer in any attempt.
        """

        def attempt() -> Answer:
            with self.engine.begin() as connection:
                return work(connection)

        return retried(self.engine, attempt)

    def images(self, statement: sa.Executable) -> list[Image]:
        """The images of the rows that a statement returns."""
        rows = self.transaction(lambda connection: connection.execute(statement).mappings().all())
        return [image_of(row) for row in rows]
