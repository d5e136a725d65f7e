"""One output location, one catalogue: who finds no row for an output there may think it an orphan.

A small object at the location, the marker, names the catalogue. It is written at the first use, and
looked at before anything is written or deleted there. Whoever takes a location over on purpose,
say since the database was lost, deletes the marker by hand: the next catalogue writes its own.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timezone

import sqlalchemy as sa

from imgflow.catalog.connected import Connected
from imgflow.errors import NotOurs, Trouble
from imgflow.store.naming import MARKER
from imgflow.store.output_store import OutputStore

# For which a process relies on having looked; a tick comes every second.
SECONDS = 60.0

# A restored or copied database has the id of its original, and rows that are no longer the same.
# Its own are the numbers that the server gave the database and the table, which survive an upgrade
# of the server and are others after a dump is read back, or in a database made from a template.
IDENTITY = sa.text(
    """
    SELECT c.id::text, d.oid || '/' || 'catalogue'::regclass::oid
    FROM catalogue AS c, pg_database AS d WHERE d.datname = current_database()
    """
)


@dataclass(frozen=True)
class Owner:
    """Whose outputs lie at a location.

    Attributes:
        catalogue: the catalogue's id.
        database: the numbers of its database and table, which tell a copy from its original.
        since: when the marker was written.
        host: on which machine.
    """

    catalogue: str
    database: str
    since: str = ""
    host: str = ""

    def is_same(self, other: Owner) -> bool:
        """Whether both are the same catalogue."""
        return (self.catalogue, self.database) == (other.catalogue, other.database)


def identity(catalog: Connected) -> Owner:
    """Who this catalogue is.

    Raises:
        Trouble: the database did not answer.
    """
    return catalog.transaction(lambda connection: Owner(*connection.execute(IDENTITY).one()))


def owner_of(outputs: OutputStore) -> Owner | None:
    """Read the marker; None when there is none.

    Raises:
        Trouble: it cannot be read, or is no marker, which says nothing about whose the location is.
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
    """Make sure that outputs may be written and deleted here, before that is done.

    A location without a marker becomes this catalogue's, also where outputs lie already: nothing is
    concluded from that, since names tell the source, and the reconciliation stops at many orphans.

    Args:
        catalog: whose outputs they would be.
        outputs: the location.
        afresh: look, even if it was done a moment ago.

    Raises:
        NotOurs: the location belongs to another catalogue.
        Trouble: that could not be found out.
    """
    database = catalog.engine.url.render_as_string(hide_password=False)
    if not afresh and time.monotonic() < outputs.claimed_until.get(database, 0):
        return
    own = identity(catalog)
    owner = owner_of(outputs)
    if owner is None:
        outputs.put_first(MARKER, _marker(own))
        owner = owner_of(outputs)  # of several that write at once one is first
    if owner is None:
        raise Trouble(f"{outputs.location.url}{MARKER} is gone right after it was written.")
    if not owner.is_same(own):
        outputs.claimed_until.pop(database, None)
        raise NotOurs(refusal(outputs, owner, own))
    outputs.claimed_until[database] = time.monotonic() + SECONDS


def refusal(outputs: OutputStore, owner: Owner, own: Owner) -> str:
    """Say whose a location is, and what there is to do."""
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
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "about": "The outputs of imgflow here belong to this catalogue; see docs/upkeep.md.",
    }
    return json.dumps(said, indent=1).encode()
