"""Connections to PostgreSQL: bounded pools, bounded waits, and errors in words."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from imgflow.catalog.embedded import embedded_postgres
from imgflow.errors import Trouble
from imgflow.settings import Settings

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)

# A database that restarts is back within seconds; what lasts longer is for the caller to retry.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


def database_url(settings: Settings) -> str:
    """The database of the settings; the embedded one is started, and runs until this process ends."""
    return settings.database_url or embedded_postgres(settings.home).url


def make_engine(url: str, *, pool_size: int = 2, max_overflow: int = 2) -> sa.Engine:
    """Make an engine; nothing is connected yet."""
    return sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "imgflow"},
    )


def retried(engine: sa.Engine, work: Callable[[], Answer]) -> Answer:
    """Run a transaction that may safely run again, until the database answers or patience ends.

    Raises:
        Trouble: the database did not answer; the text has its host, never its password.
    """
    for wait in (*RETRY_SECONDS, None):
        try:
            return work()
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            if wait is None:
                raise Trouble(_explain(engine, error)) from error
            logger.warning("%s It is tried again in %.1f s.", _explain(engine, error), wait)
            time.sleep(wait)
    raise AssertionError("the last round returns or raises")


def is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database was away, as opposed to having refused a statement."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError)


def _explain(engine: sa.Engine, error: SQLAlchemyError) -> str:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return (
        f"The database {engine.url.render_as_string(hide_password=True)} does not answer: {cause}"
    )
