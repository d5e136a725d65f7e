"""`imgflow migrate`: migrates both schemas, and makes missing buckets, before services start.

The migrations themselves are in `imgflow.catalog.database.migrations` and in Dagster.
"""

from __future__ import annotations

from collections.abc import Callable

from imgflow.catalog.database.engine import database_url, make_engine
from imgflow.catalog.database.schema import current_version
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.orchestration.dagster_storage.instance import open_instance
from imgflow.settings.variables import Settings


def migrate(settings: Settings, say: Callable[[str], None], *, make_buckets: bool) -> None:
    """Migrate the catalogue's and Dagster's tables to this version, and make missing buckets.

    Doing it again changes nothing, and concurrent calls wait for each other.

    Raises:
        Trouble: The database or the store does not answer.
    """
    stores = settings.stores
    source, outputs = stores.locations()
    url = database_url(settings)
    engine = make_engine(url)
    try:
        PostgresCatalog(engine, source.url).migrate()
        say(f"Catalogue  schema {current_version(engine)}")
    finally:
        engine.dispose()
    with open_instance(settings, url) as instance:  # makes its tables if there are none
        instance.upgrade(lambda line: say(f"Dagster    {line}"))
    say("Dagster    storage is up to date")
    if make_buckets:
        from imgflow.store.s3.admin import make_bucket

        for bucket in sorted({place.bucket for place in (source, outputs) if place.bucket}):
            made = make_bucket(bucket, checksums=settings.s3_checksums)
            say(f"Bucket     {bucket} {'made' if made else 'is there'}")
