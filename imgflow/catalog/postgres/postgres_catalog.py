"""The catalogue in PostgreSQL: the class that combines the modules of this package.

It uses one statement per page and one per batch, whatever their size. Rows are sent as arrays
(`unnest`), so that a statement's text, and with it SQLAlchemy's compiled form and the server's
plan, is the same for one row and for a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import sqlalchemy as sa

from imgflow.catalog.database import schema
from imgflow.catalog.database.engine import retried
from imgflow.catalog.postgres import uploads as announcing
from imgflow.catalog.postgres.event_history import Remembering
from imgflow.catalog.postgres.listings import Browsing, Reading
from imgflow.catalog.postgres.queue import Partitioned, Requesting
from imgflow.catalog.postgres.results import Recording
from imgflow.catalog.postgres.run_locks import Holds
from imgflow.catalog.postgres.uploads import Comparing, Ending
from imgflow.catalog.records import Announcement, Image
from imgflow.observability import upload_events
from imgflow.store.objects import SourceObject


class PostgresCatalog(Reading, Browsing, Requesting, Recording, Partitioned, Ending, Remembering):
    """The images of one source in a PostgreSQL database.

    In the order of an image's life: a listing announces it, a run is requested for it, results are
    recorded, and it is deleted.
    """

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the source's canonical URL; nothing is connected yet."""
        super().__init__(engine, source)
        self.holds = Holds(engine, source)

    def migrate(self) -> None:
        """Bring the schema to this version."""
        retried(self.engine, lambda: schema.migrate(self.engine))

    def check(self) -> None:
        """Raise `Trouble` unless the database answers."""
        self.transaction(lambda connection: connection.execute(sa.text("SELECT 1")))

    def announce(self, uploads: Sequence[SourceObject]) -> Announcement:
        """Record the uploads in a listing: new and changed ones become pending.

        Known ones are not touched. If a key comes several times, the last upload counts.
        """
        announcement = self.transaction(lambda on: announcing.announce(on, self.source, uploads))
        if upload_events.is_heard():
            for is_new, images in ((True, announcement.new), (False, announcement.changed)):
                for image in images:
                    upload_events.upload_seen(
                        self.source, image.key, image.announced, image_id=image.id, is_new=is_new
                    )
        return announcement

    def vanished(self, after: str | None, until: str | None, keys: Sequence[str]) -> list[Image]:
        """Images that a page of a listing should have shown but did not.

        Args:
            after: Key after which the page starts; None for the start of the listing.
            until: Last key of the page; None if the listing ended with this page.
            keys: Keys that the page shows.
        """
        return self.transaction(lambda on: announcing.vanished(on, self.source, after, until, keys))

    @contextmanager
    def comparing(self) -> Iterator[Comparing]:
        """Compare pages of a listing with the known uploads, all on one connection."""
        with closing(Comparing(self.engine, self.source)) as comparing:
            yield comparing
