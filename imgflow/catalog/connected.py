"""What all parts of the catalogue have in common: a database and a source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from imgflow.catalog.database.engine import retried
from imgflow.catalog.records import Image, image_of

Answer = TypeVar("Answer")

TEXT, BIGINT, INT = sa.ARRAY(sa.Text), sa.ARRAY(sa.BigInteger), sa.ARRAY(sa.Integer)
TIME = sa.ARRAY(sa.DateTime(timezone=True))


class Connected:
    """An engine, and the source whose rows are meant."""

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the canonical URL of the source; nothing is asked yet."""
        self.engine = engine
        self.source = source

    def transaction(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        """Do something in a transaction that may safely run again.

        Raises:
            Trouble: the database did not answer, again and again.
        """

        def attempt() -> Answer:
            with self.engine.begin() as connection:
                return work(connection)

        return retried(self.engine, attempt)

    def images(self, statement: sa.Executable) -> list[Image]:
        """The rows that a statement returns."""
        rows = self.transaction(lambda connection: connection.execute(statement).mappings().all())
        return [image_of(row) for row in rows]
