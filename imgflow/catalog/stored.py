"""What a listing of the outputs shows, compared with what rows name, by the database.

The names of millions of outputs lie in a temporary table, so that no process holds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.connected import TEXT, TIME
from imgflow.catalog.database.engine import outages_in_words
from imgflow.store.output_store import StoredOutput

PAGE_NAMES = 5_000
PAGE_IMAGES = 20_000

MAKE = sa.text(
    'CREATE TEMPORARY TABLE stored_outputs (name text COLLATE "C", written_at timestamptz)'
)
DROP = sa.text("DROP TABLE IF EXISTS pg_temp.stored_outputs")
FILL = sa.text("INSERT INTO stored_outputs SELECT * FROM unnest(:names, :written)").bindparams(
    sa.bindparam("names", type_=TEXT), sa.bindparam("written", type_=TIME)
)

# The array of a depth image is no object.
NAMED = """
    images AS i CROSS JOIN LATERAL (
        SELECT o.record ->> 'name' AS name FROM jsonb_each(i.outputs) AS o(output, record)
        WHERE o.output <> 'resized'
    ) AS n
"""
# What was written since the listing began is not in it.
LACKING = f"""
    SELECT i.id, array_agg(n.name) AS names FROM {NAMED}
    WHERE i.source = :source AND i.state = 'ready' AND i.updated_at < :began AND i.id > :after
        AND NOT EXISTS (SELECT FROM stored_outputs AS s WHERE s.name = n.name)
    GROUP BY i.id ORDER BY i.id
"""  # noqa: S608 - our own constant
# Whatever the source of the row.
FORGET_NAMED = f"""
    DELETE FROM stored_outputs AS s USING (SELECT n.name FROM {NAMED}) AS named
    WHERE s.name = named.name
"""  # noqa: S608 - our own constant


class Stored:
    """The outputs at a location, on one connection."""

    def __init__(self, connection: sa.Connection, source: str) -> None:
        """Make the table; the listing begins after this."""
        self._connection = connection
        self._source = source
        self.listed = 0
        self._began = connection.execute(sa.text("SELECT now()")).scalar_one()
        connection.execute(DROP)
        connection.execute(MAKE)

    def add(self, outputs: Iterable[StoredOutput]) -> None:
        """Take in all that a listing shows."""
        rest = iter(outputs)
        while page := list(islice(rest, PAGE_NAMES)):
            values = {
                "names": [output.name for output in page],
                "written": [output.last_modified for output in page],
            }
            self._connection.execute(FILL, values)
            self.listed += len(page)
        self._connection.execute(sa.text("ANALYZE stored_outputs"))

    def count_lacking(self) -> tuple[int, list[str]]:
        """How many ready images lack outputs that their rows name, and the first few names."""
        counted = f"SELECT count(*) OVER () AS count, names FROM ({LACKING}) AS l LIMIT 3"  # noqa: S608
        rows = self._ask(counted, after=0).all()
        return (int(rows[0][0]) if rows else 0), [row.names[0] for row in rows]

    def lacking(self) -> Iterator[tuple[int, list[str]]]:
        """These images by id, with the names that are not there."""
        after = 0
        while rows := self._ask(f"{LACKING} LIMIT {PAGE_IMAGES}", after=after).all():
            yield from ((row.id, row.names) for row in rows)
            after = rows[-1].id

    def keep_orphans(self, *, before: datetime) -> int:
        """Forget what a row names, and what was written since; answers how many are left."""
        self._connection.execute(sa.text(FORGET_NAMED))
        self._connection.execute(
            sa.text("DELETE FROM stored_outputs WHERE written_at >= :before"), {"before": before}
        )
        found = self._connection.execute(sa.text("SELECT count(*) FROM stored_outputs"))
        return int(found.scalar_one())

    def orphans(self, most: int = PAGE_NAMES) -> Iterator[list[str]]:
        """Pages of the names that are left, but for what a row names by the time of its page."""
        after = ""
        query = sa.text(
            "SELECT name FROM stored_outputs WHERE name > :after ORDER BY name LIMIT :most"
        )
        while names := list(
            self._connection.execute(query, {"after": after, "most": most}).scalars()
        ):
            yield names
            after = names[-1]
            if len(names) == most:
                self._connection.execute(sa.text(FORGET_NAMED))

    def _ask(self, query: str, **values: Any) -> sa.CursorResult[Any]:
        asked = {"source": self._source, "began": self._began, **values}
        return self._connection.execute(sa.text(query), asked)


@contextmanager
def stored(engine: sa.Engine, source: str) -> Iterator[Stored]:
    """Open an empty comparison with the rows of a source.

    Raises:
        Trouble: the database did not answer.
    """
    # Statements that stand alone, since a listing may take minutes.
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with outages_in_words(engine), alone.connect() as connection:
        yield Stored(connection, source)
        connection.execute(DROP)
