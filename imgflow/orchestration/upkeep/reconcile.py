"""The nightly reconciliation of bucket, catalogue, outputs and partitions, and the backfill.

Every difference is counted and repaired in the ordinary way: images that lack something are queued,
and the sensor requests runs for them; what is ours and unreferenced is deleted. The jobs that call
this are in `schedules`; old events are deleted in `retention`.
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

# Comparing outputs with rows: missing outputs are rebuilt, outputs that no row names are deleted.
#
# An output that no row names may still be somebody's. So only names of our own form in our own
# source's part are considered, at a location that belongs to this catalogue, and if there are many,
# nothing is deleted until a person allows it.


# An output is written before its row names it; one older than this no longer waits for its row.
ORPHAN_AGE = timedelta(hours=1)

# Ordinary faults leave fewer differences in a night than either of these.
FEW = 100
SHARE = 0.05

EXAMPLES = 3


def refuse_many(
    count: int, total: int, what: str, *, examples: Sequence[str], is_allowed: bool
) -> None:
    """Stop before a repair whose size points to a mistake rather than a fault.

    Args:
        count: Number of items to be repaired.
        total: Number of items compared.
        what: The difference in the plural, as it follows the two numbers in a sentence.
        examples: Names of a few of the items.
        is_allowed: A person has confirmed that the difference is right.

    Raises:
        TooMany: It is more than `FEW`, and more than `SHARE` of the total.
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
    """Queue images that lack an output, and delete the outputs that no row names.

    Returns:
        The number of images queued, and the number of outputs deleted.

    Raises:
        NotOurs: The location belongs to another catalogue.
        TooMany: Too many outputs are missing or orphaned; they were left as they are.
    """
    url = outputs.location.url
    with stored(catalog.engine, catalog.source) as found:
        # List before reading the rows, so that an output written in between has a row that names
        # it, at the latest by the next time.
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
            claim(catalog, outputs, afresh=True)  # once more, since listing takes long
            for names in found.orphans():
                outputs.delete(names)
    return missing, orphaned


PAGE_ROWS = 1_000

# No upload pauses this long between two writes.
ABANDONED_SECONDS = 24 * 3_600.0

MOST_SEALED = 25_000

GREEN = "MATERIALIZED"


@dataclass(frozen=True)
class Differences:
    """What the reconciliation found and repaired; all are counts.

    Attributes:
        listed: Objects in the source.
        new: Objects that the catalogue did not know.
        changed: Objects that the catalogue knew as another upload.
        stale: Images that lacked an output or had one of another recipe.
        missing_outputs: Images whose row named an output that did not exist.
        orphaned_outputs: Outputs that no row named.
        missing_partitions: Images without their partition.
        orphaned_partitions: Partitions without an image, or of a sealed image.
        unreported: Ready images that Dagster shows as failed or missing.
        sealed: Images that lost their partition because they had not changed for long enough.
        abandoned_uploads: Unfinished files that killed uploads left in the source.
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
        """The counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Selection:
    """Which images a backfill queues.

    Attributes:
        prefix: Only images whose object key starts with it.
        keys: Only images with these object keys; None for all.
        kind: Only this family; empty for all.
        rejected: Rejected images too.
        force: All ready images, not just stale ones; all of their outputs are rebuilt.
    """

    prefix: str = ""
    keys: Sequence[str] | None = None
    kind: str = ""
    rejected: bool = False
    force: bool = False


def backfill_stale(
    families: Sequence[Family], catalog: PostgresCatalog, selection: Selection | None = None
) -> dict[str, int]:
    """Queue images that lack an output or have one of another recipe; return counts by kind.

    The sensor and `imgflow ingest` request runs for them: few and long ones, however the images are
    scattered.
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
        families: The families whose assets and partitions to compare.
        catalog: The catalogue that everything else is compared with.
        instance: Has the partitions and events.
        source: The bucket or folder of uploads.
        outputs: The store of pictures; arrays are in the catalogue's database.
        follow: Called with the keys of images whose object is gone.
        seal_days: Seal images that have not changed for this many days; 0 for none.
        allow_many: Repair however much differs, because a person has checked it.

    Raises:
        NotOurs: The outputs belong to another catalogue.
        TooMany: More differs than faults explain; nothing of that was deleted.
        Trouble: A store or the database did not answer; repairs made so far remain.
    """
    claim(catalog, outputs, afresh=True)
    found = _compare_source(catalog, source, follow)
    found = replace(found, abandoned_uploads=source.remove_abandoned(ABANDONED_SECONDS))
    found = replace(found, stale=sum(backfill_stale(families, catalog).values()))
    missing, orphans = compare_outputs(catalog, outputs, allow_many=allow_many)
    found = replace(found, missing_outputs=missing, orphaned_outputs=orphans)
    catalog.holds.forget()
    with catalog.holds.asking():  # a request for a run adds partitions in its own order
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
            # Including deleted images, whose worker may have been killed.
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
        # Deleted images keep their partitions until the next tick.
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
    """Mark ready images whose events Dagster lacks, so that they are reported; return how many."""
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
    """All matching images, in pages; deleted ones only if the filters ask for them."""
    after = 0
    while images := catalog.page(limit=PAGE_ROWS, after_id=after, **filters):
        yield images
        after = images[-1].id


def as_metadata(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts as metadata for the UI, with spaces in their names."""
    return {name.replace("_", " "): count for name, count in counts.items()}
