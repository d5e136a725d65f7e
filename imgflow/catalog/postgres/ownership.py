"""Which catalogue owns an output location, and how its outputs compare with the catalogue's rows.

Only one catalogue may use a location: another one finds no rows for the outputs there, and would
take them for orphans. A small object at the location, the marker, names the owner. It is written at
the first use, and checked before anything is written or deleted. To take a location over on
purpose, for example because the database was lost, delete the marker by hand: the next catalogue
writes its own.

Repairing the differences that a comparison finds is in `orchestration.upkeep.reconcile`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.database.engine import TEXT, TIME, Connected, outages_in_words
from imgflow.errors import NotOurs, Trouble
from imgflow.store.naming import MARKER
from imgflow.store.output_store import OutputStore, StoredOutput

# How long a process relies on its last check; a tick comes every second.
SECONDS = 60.0

# A restored or copied database has the id of its original, but its rows are no longer the same. So
# the identity includes the numbers that the server gave the database and the table. They survive an
# upgrade of the server, and differ after a restored dump or in a database made from a template.
IDENTITY = sa.text(
    """
    SELECT c.id::text, d.oid || '/' || 'catalogue'::regclass::oid
    FROM catalogue AS c, pg_database AS d WHERE d.datname = current_database()
    """
)


@dataclass(frozen=True)
class Owner:
    """The owner of the outputs at a location.

    Attributes:
        catalogue: Id of the catalogue.
        database: Numbers of its database and table, which distinguish a copy from its original.
        since: When the marker was written.
        host: Host name of the machine that wrote it.
    """

    catalogue: str
    database: str
    since: str = ""
    host: str = ""

    def is_same(self, other: Owner) -> bool:
        """Whether both are the same catalogue."""
        return (self.catalogue, self.database) == (other.catalogue, other.database)


def identity(catalog: Connected) -> Owner:
    """The owner that this catalogue would be.

    Raises:
        Trouble: The database did not answer.
    """
    return catalog.transaction(lambda connection: Owner(*connection.execute(IDENTITY).one()))


def owner_of(outputs: OutputStore) -> Owner | None:
    """Read the marker; None if there is none.

    Raises:
        Trouble: It cannot be read or parsed, which says nothing about who owns the location.
    """
    body = outputs.get(MARKER)
    if body is None:
        return None
    try:
        found = json.loads(body)
        return Owner(*(str(found[name]) for name in ("catalogue", "database", "since", "host")))
    except (ValueError, TypeError, KeyError) as error:
        raise Trouble(
            f"{outputs.location.url}{MARKER} should say to which catalogue the outputs there "
            "belong, and cannot be understood. Look whose it is; when nobody else uses the "
            "location, delete the object, and the next start writes it anew."
        ) from error


def claim(catalog: Connected, outputs: OutputStore, *, afresh: bool = False) -> None:
    """Make sure that the catalogue may write and delete outputs at a location; call this first.

    A location without a marker becomes this catalogue's, even if it has outputs. They prove
    nothing: names identify the source, and the reconciliation stops if there are many orphans.

    `afresh` checks even if the last check was a moment ago.

    Raises:
        NotOurs: The location belongs to another catalogue.
        Trouble: The owner could not be determined.
    """
    database = catalog.engine.url.render_as_string(hide_password=False)
    if not afresh and time.monotonic() < outputs.claimed_until.get(database, 0):
        return
    own = identity(catalog)
    owner = owner_of(outputs)
    if owner is None:
        outputs.put_first(MARKER, _marker(own))
        owner = owner_of(outputs)  # if several catalogues write at once, one is first
    if owner is None:
        raise Trouble(f"{outputs.location.url}{MARKER} is gone right after it was written.")
    if not owner.is_same(own):
        outputs.claimed_until.pop(database, None)
        raise NotOurs(refusal(outputs, owner, own))
    outputs.claimed_until[database] = time.monotonic() + SECONDS


def refusal(outputs: OutputStore, owner: Owner, own: Owner) -> str:
    """Explain who owns a location, and what to do."""
    url = outputs.location.url
    marker = f"{url}{MARKER}"
    is_copy = owner.catalogue == own.catalogue
    whose = (
        "the database that this one is a copy of" if is_copy else f"the catalogue {owner.catalogue}"
    )
    fix = (
        "If this database replaces that one, as after a restore"
        if is_copy
        else "If that catalogue is gone for good and this one takes over"
    )
    return (
        f"The outputs in {url} belong to {whose} (since {owner.since}, by {owner.host}), so "
        "nothing is written or deleted there. Set IMGFLOW_OUTPUT_URL to a location of its own. "
        f"{fix}, stop the other imgflow and delete {marker}; the next start takes the location."
    )


def _marker(own: Owner) -> bytes:
    said = {
        "catalogue": own.catalogue,
        "database": own.database,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "about": "The outputs of imgflow here belong to this catalogue; see docs/upkeep.md.",
    }
    return json.dumps(said, indent=1).encode()


# Comparing a listing of the outputs with what rows name, inside the database.
#
# The names of millions of outputs are in a temporary table, so that no process holds them all.


PAGE_NAMES = 5_000
PAGE_IMAGES = 20_000

MAKE = sa.text(
    'CREATE TEMPORARY TABLE stored_outputs (name text COLLATE "C", written_at timestamptz)'
)
DROP = sa.text("DROP TABLE IF EXISTS pg_temp.stored_outputs")
FILL = sa.text("INSERT INTO stored_outputs SELECT * FROM unnest(:names, :written)").bindparams(
    sa.bindparam("names", type_=TEXT), sa.bindparam("written", type_=TIME)
)

# The array of a depth image is not an object.
NAMED = """
    images AS i CROSS JOIN LATERAL (
        SELECT o.record ->> 'name' AS name FROM jsonb_each(i.outputs) AS o(output, record)
        WHERE o.output <> 'resized'
    ) AS n
"""
# Excludes rows written since the listing began: their outputs are not in it.
LACKING = f"""
    SELECT i.id, array_agg(n.name) AS names FROM {NAMED}
    WHERE i.source = :source AND i.state = 'ready' AND i.updated_at < :began AND i.id > :after
        AND NOT EXISTS (SELECT FROM stored_outputs AS s WHERE s.name = n.name)
    GROUP BY i.id ORDER BY i.id
"""  # noqa: S608 - our own constant
# Rows of all sources.
FORGET_NAMED = f"""
    DELETE FROM stored_outputs AS s USING (SELECT n.name FROM {NAMED}) AS named
    WHERE s.name = named.name
"""  # noqa: S608 - our own constant


class Stored:
    """The outputs at a location, in a temporary table on one connection."""

    def __init__(self, connection: sa.Connection, source: str) -> None:
        """Create the table; the listing must start after this."""
        self._connection = connection
        self._source = source
        self.listed = 0
        self._began = connection.execute(sa.text("SELECT now()")).scalar_one()
        connection.execute(DROP)
        connection.execute(MAKE)

    def add(self, outputs: Iterable[StoredOutput]) -> None:
        """Add all outputs of a listing."""
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
        """Those images by id, with the names that are missing."""
        after = 0
        while rows := self._ask(f"{LACKING} LIMIT {PAGE_IMAGES}", after=after).all():
            yield from ((row.id, row.names) for row in rows)
            after = rows[-1].id

    def keep_orphans(self, *, before: datetime) -> int:
        """Drop names that rows have, and those written since `before`; return how many remain."""
        self._connection.execute(sa.text(FORGET_NAMED))
        self._connection.execute(
            sa.text("DELETE FROM stored_outputs WHERE written_at >= :before"), {"before": before}
        )
        found = self._connection.execute(sa.text("SELECT count(*) FROM stored_outputs"))
        return int(found.scalar_one())

    def orphans(self, most: int = PAGE_NAMES) -> Iterator[list[str]]:
        """Pages of the remaining names, without those that rows name by the time of the page."""
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
        Trouble: The database did not answer.
    """
    # No transaction around the statements, since a listing may take minutes.
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with outages_in_words(engine), alone.connect() as connection:
        yield Stored(connection, source)
        connection.execute(DROP)
