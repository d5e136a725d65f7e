"""Resources: how runs and sensors reach the catalogue, the stores, the queue and the workers.

Defaults come from the settings when definitions load. Secrets and the embedded database's address
are read at run time only, and nothing connects before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from typing import Any, TypeVar, cast

import dagster as dg
from pydantic import Field, create_model

from imgflow.catalog.database.engine import database_url, make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.depth.limits import DepthLimits
from imgflow.images.formats.decoding import Limits
from imgflow.images.formats.pillow import MEDIA_TYPES
from imgflow.settings.variables import load_settings
from imgflow.store.config import StoreConfig
from imgflow.store.location import Checksums
from imgflow.store.objects import Source
from imgflow.store.output_store import OutputStore
from imgflow.store.s3.sqs import Queue, SqsQueue

Resource = TypeVar("Resource", bound="dg.ConfigurableResource[Any]")


def with_own_defaults(resource: Resource) -> Resource:
    """The same resource, with its values as the defaults of its fields.

    In Dagster, a run that sets one field of a resource gets the class's defaults for the others,
    not the definitions' values: setting one worker would drop every limit of the settings.
    """
    cls = type(resource)
    values = {name: getattr(resource, name) for name in cls.model_fields}
    fields: dict[str, Any] = {}
    for name, value in values.items():
        field = copy(cls.model_fields[name])
        field.default = value
        fields[name] = (field.annotation, field)
    models: list[Any] = [create_model(cls.__name__, __base__=cls, __doc__=cls.__doc__, **fields)]
    return cast(Resource, models[0](**values))


def bound(resource: dg.ConfigurableResource[Any]) -> dg.ResourceDefinition:
    """A resource whose fields a launched run cannot change.

    For the resources that hold locations: otherwise anyone who may launch a run could have it read
    or write any folder that the workers have access to.
    """
    cls = type(resource)

    def initialize(context: dg.InitResourceContext) -> Any:
        # `process_config_and_initialize` would create a Dagster instance each time.
        values = {name: getattr(resource, name) for name in cls.model_fields}
        config = {
            name: value.get_value() if isinstance(value, dg.EnvVar) else value
            for name, value in values.items()
        }
        return cls.from_resource_context(context.replace_config(config))

    # Without a schema, Dagster would take any config and ignore it.
    return dg.ResourceDefinition(initialize, config_schema={}, description=resource.__doc__)


def nothing_kept() -> dg.IOManagerDefinition:
    """An IO manager that keeps results in memory; none of our ops returns anything.

    Dagster's default would pickle them into a folder that a launched run can choose.
    """
    make: Any = dg.InMemoryIOManager
    return dg.IOManagerDefinition(lambda _context: make(), config_schema={})


class CatalogResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself
    """The table of images."""

    database_url: str = Field(
        default="",
        description="PostgreSQL URL; empty: IMGFLOW_DATABASE_URL, or the embedded server.",
        repr=False,
    )

    def url(self) -> str:
        """The database's URL; the embedded server's is known only at run time."""
        return self.database_url or database_url(load_settings())

    @contextmanager
    def open(self, source_url: str) -> Iterator[PostgresCatalog]:
        """Open the catalogue of one source, after migrating its schema to this version."""
        engine = make_engine(self.url())
        try:
            catalog = PostgresCatalog(engine, source_url)
            catalog.migrate()
            yield catalog
        finally:
            engine.dispose()


class StoresResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself
    """Where images land and where outputs go."""

    source_url: str = Field(description="`s3://bucket/prefix` or `file:///folder`")
    output_url: str = Field(description="`s3://bucket/prefix` or `file:///folder`")
    s3_checksums: Checksums = Field(
        default="when_supported", description="`when_required` where a server refuses CRC32"
    )
    home: str = Field(
        default="", description="folder that holds no images where the source contains it"
    )
    follow_links: bool = Field(
        default=False, description="take links in a source folder for files below it"
    )

    @property
    def config(self) -> StoreConfig:
        """The configuration from which workers open the stores themselves."""
        return StoreConfig(
            self.source_url, self.output_url, self.s3_checksums, self.home, self.follow_links
        )

    @property
    def source_name(self) -> str:
        """The source's canonical URL, part of every key's identity in the catalogue."""
        return self.config.locations()[0].url

    def open_source(self) -> Source:
        """Open the source, once per process."""
        return _open_source(self.config)

    def open_outputs(self) -> OutputStore:
        """Open the output store, once per process."""
        return _open_outputs(self.config)


# Cached: there is a tick every second, and making an S3 client takes tens of milliseconds.
@lru_cache(maxsize=8)
def _open_source(config: StoreConfig) -> Source:
    return config.open_source()


@lru_cache(maxsize=8)
def _open_outputs(config: StoreConfig) -> OutputStore:
    return config.open_outputs()


class QueueResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself
    """The queue of the source's notifications; replace it where they come another way."""

    url: str = Field(default="", description="of an SQS queue")
    wait_seconds: int = Field(
        default=1, ge=0, le=20, description="how long a tick waits for the first message"
    )
    most_messages: int = Field(
        default=500, ge=1, description="received in one tick; their heads are asked for in it too"
    )
    most_seconds: float = Field(default=10, gt=0, description="of one tick spent on receiving")

    def open(self) -> Queue:
        """Open the queue, once per process."""
        return _open_queue(self.url, self.wait_seconds, self.most_messages, self.most_seconds)


@lru_cache(maxsize=8)
def _open_queue(url: str, wait_seconds: int, most_messages: int, most_seconds: float) -> Queue:
    return SqsQueue(
        url, wait_seconds=wait_seconds, most_messages=most_messages, most_seconds=most_seconds
    )


class WorkersResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself
    """The processes that do the pixel work, and what they may spend on one image."""

    count: int = Field(default=2, ge=1, description="worker processes of a run")
    decode_seconds: float = Field(default=60, gt=0, description="processor time for a photograph")
    depth_seconds: float = Field(default=3600, gt=0, description="processor time for a depth image")
    depth_max_rows: int = Field(
        default=DepthLimits().max_rows, gt=0, description="most rows of a depth image"
    )
    max_bytes: int = Field(default=200 * 1024 * 1024, gt=0, description="largest photograph")
    max_pixels: int = Field(default=100_000_000, gt=0, description="largest photograph")
    max_side: int = Field(default=65_500, gt=0, description="longest side of a photograph")
    max_frames: int = Field(default=10_000, gt=0, description="most frames or pages")
    formats: list[str] = Field(default=list(MEDIA_TYPES), description="that are decoded")
    memory_mib: int = Field(default=3_072, ge=1, description="for one photograph")

    @property
    def depth_limits(self) -> DepthLimits:
        """Limits for depth images."""
        return DepthLimits(max_rows=self.depth_max_rows)

    @property
    def photo_limits(self) -> Limits:
        """Limits for photographs."""
        return Limits(
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_frames=self.max_frames,
            formats=tuple(self.formats),
            max_memory=self.memory_mib * 2**20,
        )
