"""What requests are answered from: catalogue, depth arrays, source and outputs, each bounded."""

from __future__ import annotations

import logging
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from imgflow.api.backend.process_now import Processor
from imgflow.api.backend.readiness import Probe
from imgflow.api.backend.signatures import REVOKED_SECONDS, Signatures, signatures_of, tokens_of
from imgflow.catalog.database.engine import database_url, make_engine
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import Pulse, read_pulse, sensor_names
from imgflow.catalog.postgres.sessions import Revoked
from imgflow.errors import SettingsError, Trouble
from imgflow.images.outputs import enabled_outputs
from imgflow.settings.tokens import Tokens
from imgflow.settings.variables import Settings
from imgflow.store.disks import full_disks, places
from imgflow.store.naming import OUTPUT_FOLDERS

logger = logging.getLogger(__name__)

# Half of the 40 threads that handlers run in; most of a request's time is spent elsewhere.
POOL_SIZE, POOL_OVERFLOW = 10, 10
# Then the caller is asked to come back; waiting longer would keep handlers from other requests.
POOL_SECONDS = 3.0
MIGRATION_WAIT_SECONDS = 1.0

# Each holds a connection of the pool while it works, and asks through another one.
PROCESSED_AT_ONCE = 8

# Of requests that read depth arrays: each may hold `intervals.MOST_PIXELS` several times over.
INTERVALS_AT_ONCE = 2


@dataclass
class Processing:
    """Requests that wait for an image to be processed.

    Attributes:
        threads: of their own, so that waiting keeps no other request from being answered.
        most: that may wait at a time.
        waiting: how many do.
    """

    threads: ThreadPoolExecutor
    most: int = 64
    waiting: int = 0


class Connections:
    """Everything that a running app is connected to.

    Making one connects to nothing. `open` reaches for no network either, except that it starts the
    embedded database; a database or store that is away is found out by the first request.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the settings.

        Raises:
            SettingsError: the two locations are wrong, or others than this machine reach the API
                and no token was set.
        """
        settings.check_api_access()
        self._settings = settings
        self.reading_is_open = settings.open_reading
        # Cookies know no ports: with one name, a second imgflow on the same host would end the
        # sessions of the first. The browser sends them to whatever listens on that host all the
        # same, which is why a session is short and can be ended.
        self.cookie = f"imgflow_session_{settings.api_port}"
        self.most_upload_bytes = settings.upload_bytes
        self._stores = settings.stores
        self._source_url = self._stores.locations()[0].url
        self.sensors = sensor_names(settings)
        self._migration = threading.Lock()
        self._is_migrated = False
        self.enabled = frozenset((*enabled_outputs(settings.photo_recipe), "preview", "resized"))
        self.intervals = threading.BoundedSemaphore(INTERVALS_AT_ONCE)

    def open(self) -> None:
        """Open stores and pool.

        Raises:
            SettingsError: the embedded database does not start.
        """
        self._stores.make_default_source()
        self.source = self._stores.open_source()
        self.outputs = self._stores.open_outputs()
        self._engine = make_engine(
            database_url(self._settings),
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_seconds=POOL_SECONDS,
        )
        self._catalog = PostgresCatalog(self._engine, self._source_url)
        # Of its own, since a ping takes half as long as all of a frame's rows.
        self._depth_engine = make_engine(
            database_url(self._settings), pool_size=INTERVALS_AT_ONCE, pre_ping=False
        )
        self.arrays = DepthArrays(self._depth_engine)
        self.database_probe = Probe("database", self._check_database)
        self.processor = Processor(
            self._settings, self._stores, self._engine.url.render_as_string(False)
        )
        self.processing = Processing(ThreadPoolExecutor(PROCESSED_AT_ONCE, "process"))
        self.revoked = Revoked(self._engine)
        self.tokens = self._open_tokens()
        self.signatures = self._open_signatures()
        self.probes = (
            self.database_probe,
            Probe("source", self.source.check),
            Probe("outputs", self._check_outputs),
            Probe("sensor", self._check_sensors),
            Probe("disk", self._check_disk),
        )
        try:
            self._migrate()
        except Trouble as trouble:
            logger.warning("%s The API starts without it.", trouble)

    def close(self) -> None:
        """Give the database's connections back, and end worker processes."""
        self.processing.threads.shutdown(wait=False, cancel_futures=True)
        self.processor.close()
        self._engine.dispose()
        self._depth_engine.dispose()

    def _open_tokens(self) -> Tokens:
        """The tokens of the setting, or the one in the home."""
        try:
            return tokens_of(self._settings)
        except SettingsError as error:  # a home that is read-only, say
            logger.warning("%s Until then the API lets nobody in.", error)
            return Tokens(())

    def _open_signatures(self) -> Signatures:
        """The key of the setting, or the one in the home."""
        try:
            return signatures_of(self._settings)
        except SettingsError as error:
            logger.warning("%s Until then links and sessions end when the API does.", error)
            return Signatures(secrets.token_urlsafe(32), self._source_url)

    async def is_revoked(self, pass_id: str) -> bool:
        """Whether a session was ended.

        Raises:
            Trouble: the database does not answer, so that it cannot be known.
        """
        if not self.revoked.is_fresh():
            await run_in_threadpool(self._refresh_revoked)
        return pass_id in self.revoked

    async def revoke(self, pass_id: str) -> bool:
        """End a session or use up a sign-in key; false when it was already.

        Raises:
            Trouble: the database does not answer.
        """
        return await run_in_threadpool(self._revoke, pass_id)

    def _refresh_revoked(self) -> None:
        self._ensure_migrated()
        self.revoked.refresh()

    def _revoke(self, pass_id: str) -> bool:
        self._ensure_migrated()
        return self.revoked.revoke(pass_id, REVOKED_SECONDS)

    @property
    def catalog(self) -> PostgresCatalog:
        """The catalogue; its schema is of this version.

        Raises:
            Trouble: the database was away when the app started, and still is.
        """
        self._ensure_migrated()
        return self._catalog

    def _ensure_migrated(self) -> None:
        if not self._is_migrated:
            self._migrate()

    def _migrate(self) -> None:
        # One request at a time waits for a database that is away; the others are answered at once.
        if not self._migration.acquire(timeout=MIGRATION_WAIT_SECONDS):
            raise Trouble("The database does not answer yet.")
        try:
            if not self._is_migrated:
                self._ask_database()
                self._catalog.migrate()
                self._is_migrated = True
        finally:
            self._migration.release()

    def _check_database(self) -> None:
        self._ensure_migrated()
        self._ask_database()

    def _ask_database(self) -> None:
        """Ask once; the catalogue's own check is patient, and a probe must not be."""
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except SQLAlchemyError as error:
            raise Trouble(f"The database does not answer: {type(error).__name__}.") from error

    def pulse(self) -> Pulse:
        """Whether uploads are seen and processed."""
        return read_pulse(self.catalog.engine, self._source_url, self.sensors)

    def full_disks(self) -> dict[str, str]:
        """The disks without room, by what lies on them."""
        return full_disks(places(self._settings.home, *self._stores.locations()))

    def _check_sensors(self) -> None:
        """Raise `Trouble` when nobody sees uploads; whether the database answers is asked apart."""
        try:
            silent = self.pulse().silent
        except Trouble:
            return
        if silent:
            raise Trouble(" ".join(sensor.words() for sensor in silent))

    def _check_disk(self) -> None:
        """Raise `Trouble` when the database has no room; reading needs none elsewhere."""
        if words := self.full_disks().get("home"):
            raise Trouble(words)

    def _check_outputs(self) -> None:
        """Raise `Trouble` unless outputs can be listed."""
        location = self.outputs.location
        # A folder that is gone lists as empty.
        if location.scheme == "file" and not location.folder.is_dir():
            raise Trouble(f"The folder {location.folder} does not exist.")
        try:
            next(self.outputs.names(f"{OUTPUT_FOLDERS[0]}@readiness/"), None)
        except FileNotFoundError as error:
            raise Trouble(f"{location.url} does not exist.") from error


async def connections_of(request: Request) -> Connections:
    """The connections of the app that answers a request."""
    connections: Connections = request.app.state.connections
    return connections


Connected = Annotated[Connections, Depends(connections_of)]
