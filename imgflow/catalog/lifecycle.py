"""Deletion of images: one way for the command, the API, removal events and listings.

The order makes it safe to stop anywhere: first the uploaded object, if it is deleted too, then the
row, then the outputs. After a stop, some outputs may remain that no row names; the nightly
reconciliation removes them (see `orchestration.upkeep.reconcile`). If an image is deleted while a
run processes it, the run removes what it made (see `work.batch`). Partitions go last, once no run
covers them (see `orchestration.runs.requests`). The SQL is in `catalog.postgres.uploads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.settings.variables import OnDelete
from imgflow.store.objects import Source, look_at
from imgflow.store.output_store import OutputStore

# If a listing lacks this many images at once, or more than a few and this share of all, a deletion
# is less likely than a folder that is not mounted, or a wrong prefix.
MOST_AT_ONCE = 1_000
FEW, SHARE = 100, 0.05

# Rows locked at a time while their outputs are removed, which takes milliseconds per row.
HELD_AT_ONCE = 50

Outputs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Deleted:
    """Numbers of images, outputs and uploaded objects that were deleted, or would be.

    A depth image's array counts as an output.
    """

    images: int
    outputs: int
    objects: int


def delete_images(
    catalog: PostgresCatalog,
    outputs: OutputStore,
    images: Sequence[Image],
    *,
    source: Source | None = None,
    is_gone: bool = False,
    dry_run: bool = False,
) -> Deleted:
    """Delete images: their outputs, and their rows except for a tombstone.

    With a `source`, their uploaded objects are deleted too; `is_gone` says that these no longer
    exist. If an image is deleted already, only its uploaded object may go. With `dry_run`, nothing
    is deleted, only counted.

    Raises:
        NotOurs: The outputs belong to another catalogue; nothing was deleted.
        Trouble: A store or the database did not answer; calling again continues from there.
    """
    if not dry_run:
        claim(catalog, outputs)
    images = list({image.id: image for image in images}.values())
    alive = [image for image in images if image.state != "deleted"]
    uploaded = [image for image in images if source is not None and image.gone_at is None]
    if dry_run:
        return Deleted(len(alive), sum(len(image.outputs) for image in alive), len(uploaded))
    if source is not None:
        for image in uploaded:
            source.delete(image.key)
    touched = sorted({image.id for image in (*alive, *uploaded)})
    if not touched:
        return Deleted(0, 0, 0)
    ended = catalog.tombstone(touched, is_gone=is_gone or source is not None)
    remove_outputs(catalog, outputs, ended)
    return Deleted(len(ended), sum(map(len, ended.values())), len(uploaded))


def remove_outputs(
    catalog: PostgresCatalog, outputs: OutputStore, made: Mapping[int, Outputs]
) -> None:
    """Remove the outputs in `made`, by image id, of images that are deleted.

    An image that came back meanwhile may have outputs of the same names, so deleted images cannot
    come back until their outputs are gone.
    """
    claim(catalog, outputs)
    ids = sorted(made)
    for start in range(0, len(ids), HELD_AT_ONCE):
        with catalog.held_deleted(ids[start : start + HELD_AT_ONCE]) as deleted:
            outputs.delete(
                [
                    record["name"]
                    for image_id in sorted(deleted)
                    for output, record in made[image_id].items()
                    if output != "resized"  # stored in the database
                ]
            )


def follow_deletions(
    catalog: PostgresCatalog,
    source: Source,
    open_outputs: Callable[[], OutputStore],
    missing: Sequence[str],
    on_delete: OnDelete,
) -> str | None:
    """Apply the setting `on_delete` to images whose object seems to be gone.

    `missing` has keys that a listing lacks, or that an event reported as removed. Each object is
    checked again, since a bucket changes while it is listed. Uploads that were never read are
    withdrawn, whatever the setting. `open_outputs` is called only if needed.

    Returns:
        A message if nothing was done because it looks like a mistake; otherwise None.
    """
    if not missing:
        return None
    # Objects whose state is unknown count as present.
    found, _ = look_at(source, missing)
    gone = [key for key, upload in found.items() if upload is None]
    if on_delete != "keep" and _are_many(catalog, len(gone)):
        return (
            f"{len(gone)} images are gone from {source.location.url} at once; that looks like a "
            "wrong or unmounted source, so none was deleted. `imgflow delete` does it on purpose."
        )
    catalog.forget_uploads(gone)
    rows = catalog.by_keys(gone).values()
    images = [image for image in rows if image.state != "deleted"]
    # Includes images deleted by hand: their rows represented objects that still existed.
    noted = rows if on_delete == "keep" else [image for image in rows if image.state == "deleted"]
    catalog.mark_gone([image.id for image in noted if image.gone_at is None])
    if images and on_delete != "keep":
        delete_images(catalog, open_outputs(), images, is_gone=True)
    return None


def _are_many(catalog: PostgresCatalog, gone: int) -> bool:
    if gone <= min(FEW, MOST_AT_ONCE):
        return False
    if gone > MOST_AT_ONCE:
        return True
    known = sum(count.count for count in catalog.counts() if count.state != "deleted")
    return gone > SHARE * known
