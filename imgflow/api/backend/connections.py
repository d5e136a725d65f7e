"""The app's connections to catalogue, depth arrays, source and outputs, each with a limit.

Engines are made in `imgflow.catalog.database`, and stores are opened in `imgflow.store`.
"""

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
from imgflow.catalog.sessions import Revoked
from imgflow.errors import SettingsError, Trouble
from imgflow.images.outputs import enabled_outputs
from imgflow.settings.tokens import Tokens
from imgflow.settings.variables import Settings
from imgflow.store.disks import full_disks, places
from imgflow.store.naming import OUTPUT_FOLDERS

logger = logging.getLogger(__name__)

# Half of the 40 handler threads, since requests spend most of their time elsewhere.
POOL_SIZE, POOL_OVERFLOW = 10, 10
# After this the caller is asked to retry; waiting longer would block handlers for other requests.
POOL_SECONDS = 3.0
MIGRATION_WAIT_SECONDS = 1.0

# Each holds one connection of the pool while it works, and queries through another.
PROCESSED_AT_ONCE = 8

# Requests that read depth arrays; each may hold `depth_reads.MOST_PIXELS` several times over.
INTERVALS_AT_ONCE = 2


@dataclass
class Processing:
    """Requests that wait for an image to be processed.

    Attributes:
        threads: Threads only for these requests, so that others are answered meanwhile.
        most: Maximum number of requests that may wait at a time.
        waiting: Number of requests that wait now.
    """

    threads: ThreadPoolExecutor
    most: int = 64
    waiting: int = 0


class Connections:
    """Everything that a running app is connected to.

    The constructor connects to nothing. `open` starts the embedded database and migrates the
    catalogue; if the database or a store is down, requests find out, and the API starts anyway.
    """

    def __init__(self, settings: Settings) -> None:
        """Check the settings; nothing connects yet.

        Raises:
            SettingsError: A location is wrong, or other machines can reach the API while no token
                is set.
        """
        settings.check_api_access()
        self._settings = settings
        self.reading_is_open = settings.open_reading
        # Cookies ignore ports: with the same name, a second imgflow on this host would end the
        # sessions of the first. The browser still sends them to whatever listens on the host,
        # which is why a session is short and can be ended.
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
        """Open the stores and the connection pools.

        Raises:
            SettingsError: The embedded database does not start.
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
        # A separate engine without pings: one takes half as long as reading all rows of a frame.
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
        """Close the database connections and end the worker processes."""
        self.processing.threads.shutdown(wait=False, cancel_futures=True)
        self.processor.close()
        self._engine.dispose()
        self._depth_engine.dispose()

    def _open_tokens(self) -> Tokens:
        """Return the tokens from the setting, or the one in the home."""
        try:
            return tokens_of(self._settings)
        except SettingsError as error:  # such as a read-only home
            logger.warning("%s Until then the API lets nobody in.", error)
            return Tokens(())

    def _open_signatures(self) -> Signatures:
        """Return signatures by the key from the setting, or by the one in the home."""
        try:
            return signatures_of(self._settings)
        except SettingsError as error:
            logger.warning("%s Until then links and sessions end when the API does.", error)
            return Signatures(secrets.token_urlsafe(32), self._source_url)

    async def is_revoked(self, pass_id: str) -> bool:
        """Return whether a session was ended.

        Raises:
            Trouble: The database does not answer.
        """
        if not self.revoked.is_fresh():
            await run_in_threadpool(self._refresh_revoked)
        return pass_id in self.revoked

    async def revoke(self, pass_id: str) -> bool:
        """End a session or use up a sign-in key; False if that was done already.

        Raises:
            Trouble: The database does not answer.
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
        """The catalogue, with its schema at this version.

        Raises:
            Trouble: The database has been down since the app started.
        """
        self._ensure_migrated()
        return self._catalog

    def _ensure_migrated(self) -> None:
        if not self._is_migrated:
            self._migrate()

    def _migrate(self) -> None:
        # While the database is down, one request at a time waits for it; others fail quickly.
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
        """Ask once; the catalogue's own check retries, which a probe must not do."""
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except SQLAlchemyError as error:
            raise Trouble(f"The database does not answer: {type(error).__name__}.") from error

    def pulse(self) -> Pulse:
        """Read whether uploads are noticed and processed."""
        return read_pulse(self.catalog.engine, self._source_url, self.sensors)

    def full_disks(self) -> dict[str, str]:
        """Return messages about full disks, by what is stored on them."""
        return full_disks(places(self._settings.home, *self._stores.locations()))

    def _check_sensors(self) -> None:
        """Raise `Trouble` if no sensor notices uploads; the database has a check of its own."""
        try:
            silent = self.pulse().silent
        except Trouble:
            return
        if silent:
            raise Trouble(" ".join(sensor.words() for sensor in silent))

    def _check_disk(self) -> None:
        """Raise `Trouble` if the database's disk is full; reading needs no room elsewhere."""
        if words := self.full_disks().get("home"):
            raise Trouble(words)

    def _check_outputs(self) -> None:
        """Raise `Trouble` unless outputs can be listed."""
        location = self.outputs.location
        # A missing folder lists as empty.
        if location.scheme == "file" and not location.folder.is_dir():
            raise Trouble(f"The folder {location.folder} does not exist.")
        try:
            next(self.outputs.names(f"{OUTPUT_FOLDERS[0]}@readiness/"), None)
        except FileNotFoundError as error:
            raise Trouble(f"{location.url} does not exist.") from error


async def connections_of(request: Request) -> Connections:
    """Return the connections of the app that answers a request."""
    connections: Connections = request.app.state.connections
    return connections


Connected = Annotated[Connections, Depends(connections_of)]
