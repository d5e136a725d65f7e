"""The two families of assets, photographs and depth images: their keys, outputs and recipes."""

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

# Addresses of images in the API and the gallery, as events and asset pages show them.


@dataclass(frozen=True)
class Links:
    """Where people reach the API and the gallery.

    Attributes:
        root: such as `https://images.example.org`, without a slash at its end.
    """

    root: str = "http://127.0.0.1:8000"

    def api(self, image_id: int) -> str:
        """The row of an image as JSON."""
        return f"{self.root}/images/{image_id}"

    def picture(self, image_id: int, output: str) -> str:
        """An output that is a picture."""
        return f"{self.root}/images/{image_id}/{output}"

    def gallery(self, image_id: int) -> str:
        """The page of an image."""
        return f"{self.root}/gallery/{image_id}"

    def gallery_of(self, kind: str) -> str:
        """The newest images of a family."""
        return f"{self.root}/?kind={kind}"

    @property
    def docs(self) -> str:
        """What the API can do."""
        return f"{self.root}/docs"


HERE = Links()


# The two dynamic partition sets; `imgflow.catalog.partition_keys` says what their keys are.


photos = dg.DynamicPartitionsDefinition(name="photos")
depth_images = dg.DynamicPartitionsDefinition(name="depth_images")

PARTITIONS: dict[Kind, dg.DynamicPartitionsDefinition] = {"photo": photos, "depth": depth_images}


def partitions_of(key: str) -> dg.DynamicPartitionsDefinition:
    """The set to which an object key belongs."""
    return PARTITIONS[kind_of(key)]


# Names the kind of images in the tags of a run, for limits and for the queue of its workers.
KIND_TAG = "imgflow/kind"

# On the runs of jobs that look after all images; their names alone may be another project's, too.
MAINTENANCE_TAG = "imgflow/maintenance"

# By it dagster-celery chooses the queue of a run.
QUEUE_TAG = "dagster-celery/queue"

# Bumped by hand when what stands in a row changes.
METADATA_VERSION = "1"


@lru_cache(maxsize=256)
def _key(kind: Kind, name: str) -> dg.AssetKey:
    """Every event needs a few, which take 3 µs each to make."""
    return dg.AssetKey([kind, name])


@dataclass(frozen=True)
class Family:
    """One family of assets.

    Attributes:
        kind: `photo` or `depth`, also the first part of its asset keys.
        job: name of the job that makes all of its assets.
        outputs: name of each output with the fingerprint of its recipe.
        work: what a worker process does with one image.
        is_quick: an image is a matter of milliseconds, so a worker gets several at once.
        links: to the API and the gallery, for what the UI shows.
    """

    kind: Kind
    job: str
    outputs: Mapping[str, str]
    work: Callable[[Task], Outcome]
    is_quick: bool = False
    links: Links = HERE

    @property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """Its partition set."""
        return PARTITIONS[self.kind]

    @property
    def run_tags(self) -> dict[str, str]:
        """The tags of the runs of its job: they have limits and workers of their own.

        A depth image may take an hour, in which photographs must not wait.
        """
        return {KIND_TAG: self.kind, QUEUE_TAG: self.kind}

    @cached_property
    def source(self) -> dg.AssetKey:
        """The external asset: the uploaded objects."""
        return dg.AssetKey([self.kind, "source"])

    @cached_property
    def metadata(self) -> dg.AssetKey:
        """The asset of its rows."""
        return dg.AssetKey([self.kind, "metadata"])

    @property
    def made(self) -> frozenset[dg.AssetKey]:
        """The assets that its runs make."""
        return frozenset({self.metadata, *(self.output(name) for name in self.outputs)})

    def output(self, name: str) -> dg.AssetKey:
        """The asset of an output."""
        return _key(self.kind, name)


def photo_family(recipe: PhotoRecipe, links: Links = HERE) -> Family:
    """Photographs; the proof belongs to them when a watermark is set."""
    return Family(
        kind="photo",
        job="process_photos",
        outputs={name: recipe.fingerprint(name) for name in enabled_outputs(recipe)},
        work=process_photo_task,
        is_quick=True,
        links=links,
    )


def depth_family(recipe: DepthRecipe, links: Links = HERE) -> Family:
    """Depth images."""
    return Family(
        kind="depth",
        job="process_depth_images",
        outputs={name: recipe.fingerprint(name) for name in ("resized", "preview")},
        work=process_depth_task,
        links=links,
    )
