"""Sessions that were ended and sign-in keys that were used, before they expire by themselves.

The database has the list, so that it outlives a process and is the same for all of them; each keeps
a copy, since pictures and frames must not wait for a question about it.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from imgflow.catalog.database.engine import outages_in_words
from imgflow.catalog.database.tables import revoked

# So long an ended session may still work in another process than the one that ended it.
FRESH_SECONDS = 2.0


class Revoked:
    """The list of one database."""

    def __init__(self, engine: sa.Engine) -> None:
        """Take an engine; nothing is asked yet."""
        self._engine = engine
        # A list that is read must not replace one to which an id was added meanwhile.
        self._lock = threading.Lock()
        self._ids: frozenset[str] = frozenset()
        self._fresh_until = 0.0

    def __contains__(self, pass_id: str) -> bool:
        """Whether an id is in the copy; see `is_fresh`."""
        return pass_id in self._ids

    def is_fresh(self) -> bool:
        """Whether the copy was read a moment ago."""
        return time.monotonic() < self._fresh_until

    def refresh(self) -> None:
        """Read the list, unless another thread just did.

        Raises:
            Trouble: the database does not answer, so that nobody knows what was ended.
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
        """Add an id for some time, by the database's clock, and say whether it is new.

        Of all who add one id, in whatever process, one is told that it is new.

        Raises:
            Trouble: the database does not answer; it may have been added.
        """
        until = sa.func.now() + sa.literal(timedelta(seconds=seconds))
        add = insert(revoked).values(id=pass_id, until=until).on_conflict_do_nothing()
        with self._lock, outages_in_words(self._engine), self._engine.begin() as connection:
            connection.execute(sa.delete(revoked).where(revoked.c.until < sa.func.now()))
            is_new = connection.execute(add.returning(revoked.c.id)).first() is not None
            self._ids |= {pass_id}
        return is_new
