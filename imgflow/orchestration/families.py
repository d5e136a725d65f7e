"""The two families of assets, photographs and depth images: keys, partitions, outputs, links.

The asset definitions made from them are in `assets.asset_definitions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import dagster as dg

from imgflow.catalog.records import Kind, kind_of
from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.images.outputs import enabled_outputs
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.work.photographs import process_photo_task
from imgflow.work.pool import process_depth_task
from imgflow.work.tasks import Outcome, Task


@dataclass(frozen=True)
class Links:
    """Addresses of images in the API and the gallery, as events and asset pages show them.

    Attributes:
        root: URL such as `https://images.example.org`, without a trailing slash.
    """

    root: str = "http://127.0.0.1:8000"

    def api(self, image_id: int) -> str:
        """The image's row as JSON."""
        return f"{self.root}/images/{image_id}"

    def picture(self, image_id: int, output: str) -> str:
        """An output that browsers can show as a picture."""
        return f"{self.root}/images/{image_id}/{output}"

    def gallery(self, image_id: int) -> str:
        """The image's page in the gallery."""
        return f"{self.root}/gallery/{image_id}"

    def gallery_of(self, kind: str) -> str:
        """The gallery of a family, newest images first."""
        return f"{self.root}/?kind={kind}"

    @property
    def docs(self) -> str:
        """The API's documentation."""
        return f"{self.root}/docs"


HERE = Links()


# The two dynamic partition sets; `imgflow.catalog.partition_keys` makes their keys.
photos = dg.DynamicPartitionsDefinition(name="photos")
depth_images = dg.DynamicPartitionsDefinition(name="depth_images")

PARTITIONS: dict[Kind, dg.DynamicPartitionsDefinition] = {"photo": photos, "depth": depth_images}


def partitions_of(key: str) -> dg.DynamicPartitionsDefinition:
    """The partition set of an object key."""
    return PARTITIONS[kind_of(key)]


# Run tag with the kind of images, for concurrency limits and for the queue of the run's workers.
KIND_TAG = "imgflow/kind"

# Marks runs of upkeep jobs, because another project may have jobs of the same name.
MAINTENANCE_TAG = "imgflow/maintenance"

# dagster-celery chooses the queue of a run by it.
QUEUE_TAG = "dagster-celery/queue"

# Bump by hand when the contents of a row change.
METADATA_VERSION = "1"


@lru_cache(maxsize=256)
def _key(kind: Kind, name: str) -> dg.AssetKey:
    """Cached: every event needs a few keys, and making one takes 3 µs."""
    return dg.AssetKey([kind, name])


@dataclass(frozen=True)
class Family:
    """One family of assets.

    Attributes:
        kind: `photo` or `depth`; also the first part of its asset keys.
        job: Name of the job that makes all of its assets.
        outputs: Fingerprint of the recipe, by name of the output.
        work: Module-level function that a worker process runs for each image.
        is_quick: An image takes milliseconds, so a worker gets several at once.
        links: Addresses that the UI shows.
    """

    kind: Kind
    job: str
    outputs: Mapping[str, str]
    work: Callable[[Task], Outcome]
    is_quick: bool = False
    links: Links = HERE

    @property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """The family's partition set."""
        return PARTITIONS[self.kind]

    @property
    def run_tags(self) -> dict[str, str]:
        """Tags of the job's runs, which give each family its own limits and workers.

        A depth image may take an hour, and photographs must not wait for it.
        """
        return {KIND_TAG: self.kind, QUEUE_TAG: self.kind}

    @cached_property
    def source(self) -> dg.AssetKey:
        """Key of the external asset: the uploaded objects."""
        return dg.AssetKey([self.kind, "source"])

    @cached_property
    def metadata(self) -> dg.AssetKey:
        """Key of the asset that stands for the rows."""
        return dg.AssetKey([self.kind, "metadata"])

    @property
    def made(self) -> frozenset[dg.AssetKey]:
        """Keys of the assets that the family's runs make."""
        return frozenset({self.metadata, *(self.output(name) for name in self.outputs)})

    def output(self, name: str) -> dg.AssetKey:
        """Key of an output's asset."""
        return _key(self.kind, name)


def photo_family(recipe: PhotoRecipe, links: Links = HERE) -> Family:
    """The family of photographs; it has a proof only when a watermark is set."""
    return Family(
        kind="photo",
        job="process_photos",
        outputs={name: recipe.fingerprint(name) for name in enabled_outputs(recipe)},
        work=process_photo_task,
        is_quick=True,
        links=links,
    )


def depth_family(recipe: DepthRecipe, links: Links = HERE) -> Family:
    """The family of depth images."""
    return Family(
        kind="depth",
        job="process_depth_images",
        outputs={name: recipe.fingerprint(name) for name in ("resized", "preview")},
        work=process_depth_task,
        links=links,
    )
