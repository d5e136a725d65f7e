"""Revoked sessions and used sign-in keys, kept until they would have expired.

The list is in the database, so it outlives processes and is the same for all of them. Each process
keeps a copy, since requests for pictures and frames must not wait for a query.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from imgflow.catalog.database.engine import outages_in_words
from imgflow.catalog.database.tables import revoked

# How long an ended session may still work in a process other than the one that ended it.
FRESH_SECONDS = 2.0


class Revoked:
    """The revoked ids in one database."""

    def __init__(self, engine: sa.Engine) -> None:
        """Take an engine; nothing is connected yet."""
        self._engine = engine
        # A list being read must not replace one to which an id was added meanwhile.
        self._lock = threading.Lock()
        self._ids: frozenset[str] = frozenset()
        self._fresh_until = 0.0

    def __contains__(self, pass_id: str) -> bool:
        """Whether an id is in the copy; see `is_fresh`."""
        return pass_id in self._ids

    def is_fresh(self) -> bool:
        """Whether the copy was read in the last `FRESH_SECONDS`."""
        return time.monotonic() < self._fresh_until

    def refresh(self) -> None:
        """Read the list, unless another thread just did.

        Raises:
            Trouble: The database does not answer, so revoked ids are unknown.
        """
        with self._lock:
            if self.is_fresh():
                return
            began = time.monotonic()
            query = sa.select(revoked.c.id).where(revoked.c.until > sa.func.now())
            with outages_in_words(self._engine), self._engine.connect() as connection:
                self._ids = frozenset(connection.scalars(query))
            self._fresh_until = began + FRESH_SECONDS

    def revoke(self, pass_id: str, seconds: float) -> bool:
        """Add an id for some time, by the database's clock, and return whether it is new.

        If several callers add one id, in whatever processes, it is new for exactly one of them.

        Raises:
            Trouble: The database does not answer; the id may have been added.
        """
        until = sa.func.now() + sa.literal(timedelta(seconds=seconds))
        add = insert(revoked).values(id=pass_id, until=until).on_conflict_do_nothing()
        with self._lock, outages_in_words(self._engine), self._engine.begin() as connection:
            connection.execute(sa.delete(revoked).where(revoked.c.until < sa.func.now()))
            is_new = connection.execute(add.returning(revoked.c.id)).first() is not None
            self._ids |= {pass_id}
        return is_new
