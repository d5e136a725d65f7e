"""Images that are really uploaded, really processed, and really in a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.assembly import build_families
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.settings.tokens import own_token
from imgflow.settings.variables import load_settings
from imgflow.store.config import StoreConfig
from imgflow.work import batch
from imgflow.work.depth_images import process_depth
from imgflow.work.photographs import Worker, answered
from imgflow.work.tasks import WorkerConfig

RUN_ID = "5f0c3c5e-0000-4000-8000-000000000000"


class Library:
    """A source folder, its outputs and its catalogue."""

    def __init__(self, home: Path, database_url: str, **settings: Any) -> None:
        self.settings = load_settings(
            _env_file=None, home=home, database_url=database_url, workers=1, **settings
        )
        stores = StoreConfig(self.settings.source_url, self.settings.output_url)
        source, _ = stores.locations()
        self.folder = source.folder
        if source.scheme == "file":
            self.folder.mkdir(parents=True, exist_ok=True)
        self.worker = Worker(
            WorkerConfig(
                stores,
                database_url,
                source.url,
                self.settings.photo_recipe,
                self.settings.photo_limits,
                self.settings.depth_recipe,
                self.settings.decode_seconds,
                self.settings.depth_seconds,
            )
        )
        self.engine = make_engine(database_url)
        self.catalog = PostgresCatalog(self.engine, source.url)
        self.catalog.migrate()

    def put(self, key: str, body: bytes) -> Path:
        """Upload an object that nobody listed yet."""
        file = self.folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written anew, as uploads are: another inode, and so another identity.
        file.unlink(missing_ok=True)
        file.write_bytes(body)
        return file

    def announce(self) -> None:
        """List the folder, as the sensor does."""
        self.catalog.announce(self.worker.source.list_page(None, 10_000).objects)

    def process(self, *keys: str) -> None:
        """Process images as a run does; all that wait when none is named."""
        for family in build_families(self.settings):
            waiting = self.catalog.waiting(family.kind, active=[], most=10_000)
            images = [image for image in waiting if not keys or image.key in keys]
            enabled = family.outputs
            plan = batch.plan(images, batch.Family(enabled, frozenset(enabled)), RUN_ID)
            for task in plan.tasks:
                if family.kind == "photo":
                    outcome = answered(task, self.worker.photo)
                else:
                    outcome = answered(task, lambda task: process_depth(self.worker, task))
                assert outcome.verdict is not None, outcome.trouble
                self.catalog.record([outcome.verdict])

    def add(self, key: str, body: bytes) -> Image:
        """Upload, list and process one object."""
        self.put(key, body)
        self.announce()
        self.process(key)
        return self.image(key)

    def image(self, key: str) -> Image:
        return self.catalog.by_keys([key])[key]

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        """A client of an API over this library, with the first of its tokens."""
        app = create_app(self.settings)
        with local(app) as client:
            client.headers.update(bearer(self.token))
            yield client

    @property
    def token(self) -> str:
        """The first of the API's tokens."""
        first = self.settings.api_token.split(",")[0].partition(":")[0].strip()
        return first or own_token(self.settings.home)


def bearer(token: str) -> dict[str, str]:
    """The header that a token is sent in."""
    return {"Authorization": f"Bearer {token}"}


def local(app: FastAPI, client: str = "127.0.0.1", host: str = "127.0.0.1") -> TestClient:
    """A client of this machine, or of another one, without a token."""
    return TestClient(
        app,
        base_url=f"http://{host}:8000",
        client=(client, 50_000),
        raise_server_exceptions=False,
        follow_redirects=False,
    )


def encoded(key: str) -> str:
    """A key as clients put it into a path."""
    return "key:" + quote(key, safe="")
