"""How images end: one way for the command, the API, removal events and listings.

The order makes it safe to stop anywhere: the uploaded object first, when it goes too, then the row,
then the outputs. What a stop leaves behind are outputs that no row names, which the collector
removes. What a run makes of an image that is deleted under its hands is removed by that run (see
`orchestration.batch`). Partitions go last, when no run covers them (see `orchestration.requests`).
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

# A listing that lacks so many images at once, or more than a few and such a share of all, is more
# likely a folder that is not mounted, or a wrong prefix, than a deletion.
MOST_AT_ONCE = 1_000
FEW, SHARE = 100, 0.05

# Rows that are locked while their outputs are removed, which takes milliseconds each.
HELD_AT_ONCE = 50

Outputs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Deleted:
    """What was deleted, or would be: numbers of images, outputs and uploaded objects.

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

    Args:
        catalog: of the rows.
        outputs: where the pictures lie.
        images: which; of those that are deleted already, at most the uploaded object goes.
        source: deletes the uploaded objects too, when given.
        is_gone: the uploaded objects are gone already.
        dry_run: only say what would be deleted.

    Raises:
        NotOurs: the outputs there are another catalogue's; nothing was deleted.
        Trouble: a store or the database did not answer; calling again goes on where this stopped.
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
    """Remove what was made of images, as far as they are deleted.

    An image that came back meanwhile may have outputs of the same names, so it is kept from that
    until its outputs are gone.

    Args:
        catalog: of the rows.
        outputs: where the pictures lie.
        made: records of outputs, by id of image.
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
                    if output != "resized"  # lies in the database
                ]
            )


def follow_deletions(
    catalog: PostgresCatalog,
    source: Source,
    open_outputs: Callable[[], OutputStore],
    missing: Sequence[str],
    on_delete: OnDelete,
) -> str | None:
    """Do what the setting says with images whose object seems to be gone.

    Each is looked at once more, since a bucket changes while it is listed. Uploads that were never
    read are taken back, whatever the setting.

    Args:
        catalog: of the rows.
        source: where the objects were.
        open_outputs: opens the store of the pictures, when it is needed.
        missing: keys that a listing did not show, or whose removal an event told.
        on_delete: the setting.

    Returns:
        A sentence when nothing was done because it looks like a mistake.
    """
    if not missing:
        return None
    # Of those that cannot be asked for nothing is concluded.
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
    # Also of images that were deleted by hand, whose rows stood for objects that were still there.
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
