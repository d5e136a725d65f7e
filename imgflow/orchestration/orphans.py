"""Outputs and rows compared: what is missing is made again, what no row names is deleted.

That no row names something is no knowledge of whose it is. So only names of our own form in the
part of our own source are looked at, at a location that belongs to this catalogue, and where they
are many, nothing is deleted before a person has said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.stored import stored
from imgflow.errors import TooMany
from imgflow.store.naming import is_own, own_folders
from imgflow.store.output_store import OutputStore

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
        orphaned = found.keep_orphans(before=datetime.now(timezone.utc) - ORPHAN_AGE)
        if orphaned:
            what = f"outputs in {url} are named by no row and would be deleted"
            examples = next(found.orphans(EXAMPLES))
            refuse_many(orphaned, found.listed, what, examples=examples, is_allowed=allow_many)
            claim(catalog, outputs, afresh=True)  # right before, since a listing takes long
            for names in found.orphans():
                outputs.delete(names)
    return missing, orphaned
