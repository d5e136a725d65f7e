"""Bringing bucket, catalogue, outputs and partitions into agreement: the nightly reconciliation.

Every difference is counted and repaired by the ordinary way: what is missing becomes pending, and
the sensor asks for it; what is our own and nothing points to is deleted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import dagster as dg

from imgflow.catalog.partition_keys import object_key, partition_key
from imgflow.catalog.postgres.ownership import claim, stored
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.errors import TooMany
from imgflow.orchestration.families import Family
from imgflow.orchestration.runs.hot_set import is_idle, seal, take_partitions
from imgflow.orchestration.runs.liveness import unfinished_runs
from imgflow.orchestration.sensing.listing import Follow, Round, list_and_announce
from imgflow.store.naming import is_own, own_folders
from imgflow.store.objects import Source
from imgflow.store.output_store import OutputStore

# Outputs and rows compared: what is missing is made again, what no row names is deleted.
#
# That no row names something is no knowledge of whose it is. So only names of our own form in the
# part of our own source are looked at, at a location that belongs to this catalogue, and where they
# are many, nothing is deleted before a person has said so.


# An output is written before its row names it; what is older than this waits for no row any more.
ORPHAN_AGE = timedelta(hours=1)

# What a night's faults leave behind is fewer than either of these.
FEW = 100
SHARE = 0.05

EXAMPLES = 3


def refuse_many(
    count: int, total: int, what: str, *, examples: Sequence[str], is_allowed: bool
) -> None:
    """Stop before a repair that is more likely to come from a mistake than from a fault.

    Args:
        count: of what would be repaired.
        total: of what was looked at.
        what: is so, in the plural: what follows the two numbers in a sentence.
        examples: a few of them.
        is_allowed: a person has said that it is right.

    Raises:
        TooMany: it is more than a few, and more than a share.
    """
    if is_allowed or count <= max(FEW, SHARE * total):
        return
    shown = ", ".join(map(repr, examples[:EXAMPLES]))
    raise TooMany(
        f"{count} of {total} {what} (for example {shown}). So many at once look like a wrong or "
        "unmounted location, or a wrong or restored database, so nothing was deleted or made "
        "again. Check IMGFLOW_SOURCE_URL, IMGFLOW_OUTPUT_URL and IMGFLOW_DATABASE_URL. If all of "
        "it is right, run the job `reconcile` once with `allow_many: true` in its configuration."
    )


def compare_outputs(
    catalog: PostgresCatalog, outputs: OutputStore, *, allow_many: bool
) -> tuple[int, int]:
    """Reopen images that lack an output, and delete the outputs that no row names.

    Returns:
        How many images, and how many outputs.

    Raises:
        NotOurs: the location is another catalogue's.
        TooMany: so many are missing or orphaned that nothing was done.
    """
    url = outputs.location.url
    with stored(catalog.engine, catalog.source) as found:
        # Listed before the rows are read: an output written in between has a row that names it, at
        # least by the next time.
        found.add(
            output
            for output in outputs.names(*own_folders(catalog.source))
            if is_own(output.name, catalog.source)
        )
        lacking, examples = found.count_lacking()
        ready = sum(count.count for count in catalog.counts() if count.state == "ready")
        what = f"ready images lack outputs in {url}"
        refuse_many(lacking, ready, what, examples=examples, is_allowed=allow_many)
        missing = 0
        for image_id, names in found.lacking() if lacking else ():
            gone = [name for name in names if not outputs.exists(name)]
            if gone:
                catalog.reopen_without(image_id, gone)
                missing += 1
        orphaned = found.keep_orphans(before=datetime.now(UTC) - ORPHAN_AGE)
        if orphaned:
            what = f"outputs in {url} are named by no row and would be deleted"
            examples = next(found.orphans(EXAMPLES))
            refuse_many(orphaned, found.listed, what, examples=examples, is_allowed=allow_many)
            claim(catalog, outputs, afresh=True)  # right before, since a listing takes long
            for names in found.orphans():
                outputs.delete(names)
    return missing, orphaned


PAGE_ROWS = 1_000

# No upload takes so long between two writes.
ABANDONED_SECONDS = 24 * 3_600.0

MOST_SEALED = 25_000

GREEN = "MATERIALIZED"


@dataclass(frozen=True)
class Differences:
    """What the reconciliation found and repaired, in numbers.

    Attributes:
        listed: objects in the source.
        new: of these, unknown to the catalogue.
        changed: of these, known as another upload.
        stale: images that lacked an output or had one of another recipe.
        missing_outputs: images whose row named an output that was not there.
        orphaned_outputs: outputs that no row named.
        missing_partitions: images without a partition.
        orphaned_partitions: partitions without an image, or of a sealed one.
        unreported: ready images of which Dagster says that something failed or is missing.
        sealed: images that lost their partition since they are unchanged for so long.
        abandoned_uploads: unfinished files that killed uploads left in the source.
    """

    listed: int = 0
    new: int = 0
    changed: int = 0
    stale: int = 0
    missing_outputs: int = 0
    orphaned_outputs: int = 0
    missing_partitions: int = 0
    orphaned_partitions: int = 0
    unreported: int = 0
    sealed: int = 0
    abandoned_uploads: int = 0

    def counts(self) -> dict[str, int]:
        """The numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Selection:
    """Which images a backfill makes pending, beside those that are stale.

    Attributes:
        prefix: only images whose key begins so.
        keys: only these; None for all.
        kind: only this family.
        rejected: the rejected ones too.
        force: all ready ones, and all of their outputs are made again.
    """

    prefix: str = ""
    keys: Sequence[str] | None = None
    kind: str = ""
    rejected: bool = False
    force: bool = False


def backfill_stale(
    families: Sequence[Family], catalog: PostgresCatalog, selection: Selection | None = None
) -> dict[str, int]:
    """Make pending what lacks an output or has one of another recipe, and count it by kind.

    The sensor and `imgflow ingest` ask for runs over them, few and long ones wherever they lie.
    """
    wanted = selection or Selection()
    counts: dict[str, int] = {}
    for family in families:
        if wanted.kind not in ("", family.kind):
            continue
        kind, prefix, keys = family.kind, wanted.prefix, wanted.keys
        if wanted.force:
            count = catalog.outdate(kind, prefix=prefix, keys=keys)
        else:
            count = catalog.reopen_stale(kind, family.outputs, prefix=prefix, keys=keys)
        if wanted.rejected:
            count += catalog.reopen_rejected(kind, prefix=prefix, keys=keys)
        counts[kind] = count
    return counts


def reconcile(
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    source: Source,
    outputs: OutputStore,
    *,
    follow: Follow,
    seal_days: int = 0,
    allow_many: bool = False,
) -> Differences:
    """Compare bucket, catalogue, outputs and partitions, and repair every difference.

    Args:
        families: whose images.
        catalog: is compared with the others.
        instance: has partitions and events.
        source: the bucket.
        outputs: where pictures lie.
        follow: is told about images whose object is gone.
        seal_days: images unchanged for so long lose their partition; 0 for none.
        allow_many: repair however much differs, since a person has looked at it.

    Raises:
        NotOurs: the outputs belong to another catalogue.
        TooMany: more differs than faults explain; nothing was deleted.
        Trouble: a store or the database did not answer; what was repaired stays so.
    """
    claim(catalog, outputs, afresh=True)
    found = _compare_source(catalog, source, follow)
    found = replace(found, abandoned_uploads=source.remove_abandoned(ABANDONED_SECONDS))
    found = replace(found, stale=sum(backfill_stale(families, catalog).values()))
    missing, orphans = compare_outputs(catalog, outputs, allow_many=allow_many)
    found = replace(found, missing_outputs=missing, orphaned_outputs=orphans)
    catalog.holds.forget()
    with catalog.holds.asking():  # a run that is about to begin adds partitions in its own order
        if is_idle(unfinished_runs(instance, catalog, families), catalog):
            found = _compare_partitions(found, families, catalog, instance, allow_many)
            unreported = [_compare_events(family, catalog, instance) for family in families]
            found = replace(found, unreported=sum(unreported))
            if seal_days:
                before = datetime.now(UTC) - timedelta(days=seal_days)
                sealed = [
                    seal(family, catalog, instance, most=MOST_SEALED, before=before)
                    for family in families
                ]
                found = replace(found, sealed=sum(sealed))
            from imgflow.catalog.postgres.depth_arrays import (
                DepthArrays,  # numpy, for this job only
            )

            arrays = DepthArrays(catalog.engine)
            # Also of deleted images, whose worker may have been killed.
            deleted = _rows(catalog, kind="depth", state="deleted")
            for images in chain(_rows(catalog, kind="depth"), deleted):
                arrays.drop_superseded([image.id for image in images])
    return found


def _compare_source(catalog: PostgresCatalog, source: Source, follow: Follow) -> Differences:
    seen = list_and_announce(source, catalog, Round(), pages=sys.maxsize, follow=follow)
    return Differences(listed=seen.listed, new=len(seen.new), changed=len(seen.changed))


def _compare_partitions(
    found: Differences,
    families: Sequence[Family],
    catalog: PostgresCatalog,
    instance: dg.DagsterInstance,
    allow_many: bool,
) -> Differences:
    missing = orphaned = 0
    for family in families:
        name = str(family.partitions.name)
        known = set(instance.get_dynamic_partitions(name))
        total = len(known)
        for images in _rows(catalog, kind=family.kind, in_partitions=True):
            expected = {partition_key(image.key) for image in images}
            if lacking := sorted(expected - known):
                instance.add_dynamic_partitions(name, lacking)
                missing += len(lacking)
            known -= expected
        # Deleted images keep theirs until the next tick.
        leaving = {partition_key(key) for key in catalog.leaving(family.kind, most=len(known))}
        keys = [object_key(partition) for partition in sorted(known - leaving)]
        explained = catalog.outside_partitions(family.kind, keys)
        explained |= catalog.needed_by_others(family.kind, keys)
        unknown = [key for key in keys if key not in explained]
        what = f"partitions of {name} have no image and would be deleted"
        refuse_many(len(unknown), total, what, examples=unknown, is_allowed=allow_many)
        if keys:
            orphaned += take_partitions(family, catalog, instance, keys)
    return replace(found, missing_partitions=missing, orphaned_partitions=orphaned)


def _compare_events(family: Family, catalog: PostgresCatalog, instance: dg.DagsterInstance) -> int:
    """Have said again what Dagster does not know of ready images, and count them."""
    known = instance.get_dynamic_partitions(str(family.partitions.name))
    green = set(known)
    for asset in family.made:
        statuses = instance.get_status_by_partition(asset, known, family.partitions) or {}
        green &= {key for key, status in statuses.items() if status and status.name == GREEN}
    unsaid = 0
    for images in _rows(catalog, kind=family.kind, state="ready", in_partitions=True):
        ids = [image.id for image in images if partition_key(image.key) not in green]
        catalog.unreport(ids)
        unsaid += len(ids)
    return unsaid


def _rows(catalog: PostgresCatalog, **filters: Any) -> Iterator[list[Image]]:
    """All images that are not deleted, in pages."""
    after = 0
    while images := catalog.page(limit=PAGE_ROWS, after_id=after, **filters):
        yield images
        after = images[-1].id


def as_metadata(counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers for the UI, with names for people."""
    return {name.replace("_", " "): count for name, count in counts.items()}
