"""How images end: one way for the command, the API, removal events and listings.

The order makes it safe to stop anywhere: the uploaded object first, when it goes too, then the row,
then the outputs. What a stop leaves behind are outputs that no row names, which the collector
removes. Partitions go last, when no run covers them (see `orchestration.requests`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Image
from imgflow.settings import OnDelete
from imgflow.store.looking import look_at
from imgflow.store.objects import Source
from imgflow.store.outputs import OutputStore

# A listing that lacks so many images at once is more likely a folder that is not mounted, or a
# wrong prefix, than a deletion.
MOST_AT_ONCE = 1_000


@dataclass(frozen=True)
class Deleted:
    """What was deleted, or would be: numbers of images, outputs and uploaded objects."""

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
        images: which; those that are deleted already make no difference.
        source: deletes the uploaded objects too, when given.
        is_gone: the uploaded objects are gone already.
        dry_run: only say what would be deleted.

    Raises:
        Trouble: a store or the database did not answer; calling again goes on where this stopped.
    """
    alive = [image for image in images if image.state != "deleted"]
    names = [
        record["name"]
        for image in alive
        for output, record in image.outputs.items()
        if output != "resized"
    ]
    objects = len(alive) if source is not None else 0
    if not dry_run and alive:
        if source is not None:
            for image in alive:
                source.delete(image.key)
        is_gone = is_gone or source is not None
        names = catalog.tombstone([image.id for image in alive], is_gone=is_gone)
        outputs.delete(names)
    return Deleted(len(alive), len(names), objects)


def follow_deletions(
    catalog: PostgresCatalog,
    source: Source,
    open_outputs: Callable[[], OutputStore],
    missing: Sequence[Image],
    on_delete: OnDelete,
) -> str | None:
    """Do what the setting says with images that a listing did not show.

    Each is looked at once more, since a bucket changes while it is listed.

    Returns:
        A sentence when nothing was done because it looks like a mistake.
    """
    if not missing:
        return None
    # Of those that cannot be asked for nothing is concluded.
    found, _ = look_at(source, [image.key for image in missing])
    gone = [image for image in missing if image.key in found and found[image.key] is None]
    if on_delete == "keep":
        catalog.mark_gone([image.id for image in gone])
        return None
    if len(gone) > MOST_AT_ONCE:
        return (
            f"{len(gone)} images are gone from {source.location.url} at once; that looks like a "
            "wrong or unmounted source, so none was deleted. `imgflow delete` does it on purpose."
        )
    delete_images(catalog, open_outputs(), gone, is_gone=True)
    return None
