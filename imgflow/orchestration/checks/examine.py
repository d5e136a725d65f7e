"""Reads stored images, tables and listings for the checks; `judge` decides what is a defect.

One image is in memory at a time, however many there are. If a store does not answer, that is
trouble and ends the examination; it is never a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import dagster as dg

from imgflow.catalog.partition_keys import object_key, partition_key
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, kind_of
from imgflow.orchestration.checks.judge import (
    AGREEMENT,
    DEPTHS_RISE,
    FITS_BOX,
    NOTHING_PRIVATE,
    READABLE,
    Findings,
    judge_depths,
    judge_picture,
)
from imgflow.orchestration.families import Family
from imgflow.store.objects import Source, look_at
from imgflow.store.output_store import OutputStore

PAGE_ROWS = 500
LISTED_OBJECTS = 1_000

# Bounds memory: while the first million images come in, none of them has a row yet.
MOST_SUSPICIOUS = 10_000

ORPHAN = "has a partition, and no row that it belongs to"

Check = tuple[str, str]
"""The last part of an asset key and the name of a check."""


@dataclass(frozen=True)
class Examination:
    """Examines images of one family.

    Attributes:
        checks: The checks to evaluate; `agreement` is not evaluated here.
        boxes: Maximum width and height of pictures, by output.
    """

    family: Family
    checks: frozenset[Check]
    catalog: PostgresCatalog
    open_outputs: Callable[[], OutputStore]
    boxes: Mapping[str, tuple[int, int]]

    def images(self, images: Iterable[Image]) -> dict[Check, Findings]:
        """Examine the outputs of ready images; others have none to examine."""
        found = {check: Findings() for check in sorted(self.checks) if check[1] != AGREEMENT}
        outputs = self.open_outputs() if found else None
        seen: dict[str, Image] = {}
        for image in images if found else ():
            if image.state != "ready" or image.processed != image.announced:
                continue
            defective = False
            for name in image.outputs:
                if name == "resized":
                    problems = self._depths(image)
                else:
                    checks = {check for output, check in self.checks if output == name}
                    if not checks or outputs is None:
                        continue
                    body = outputs.get(image.outputs[name]["name"])
                    problems = judge_picture(image, name, body, self.boxes.get(name))
                defective |= self._note(found, image, name, problems)
            if defective:
                seen[image.key] = image
        self._take_back(found, seen)
        return found

    def _depths(self, image: Image) -> dict[str, str]:
        if ("resized", DEPTHS_RISE) not in self.checks:
            return {}
        from imgflow.catalog.postgres.depth_arrays import (
            DepthArrays,  # numpy, for depth images only
        )

        interval = DepthArrays(self.catalog.engine).read(image.id, depths_only=True)
        problem = judge_depths(image, interval.depths)
        return {DEPTHS_RISE: problem} if problem else {}

    def _note(
        self, found: dict[Check, Findings], image: Image, name: str, problems: Mapping[str, str]
    ) -> bool:
        """Add an output to the findings, and return whether it is defective."""
        is_current = image.outputs[name]["fingerprint"] == self.family.outputs.get(name)
        defective = False
        for check, findings in found.items():
            if check[0] != name:
                continue
            if check[1] == FITS_BOX and not is_current:
                findings.skipped += 1  # made with another recipe; `backfill_stale` handles it
                continue
            findings.add(image.key, problems.get(check[1]))
            defective |= check[1] in problems
        return defective

    def _take_back(self, found: Mapping[Check, Findings], seen: Mapping[str, Image]) -> None:
        """Drop findings about images that were processed or deleted during the examination."""
        named = {key for findings in found.values() for key in findings.named}
        now = self.catalog.by_keys(sorted(named)) if named else {}
        for key in named:
            image = now.get(key)
            if image is None or image.updated_at != seen[key].updated_at:
                for findings in found.values():
                    findings.take_back(key)


def checks_of(family: Family, boxes: Mapping[str, tuple[int, int]]) -> list[Check]:
    """The checks of a family, in the order of its assets."""
    checks: list[Check] = []
    for name in family.outputs:
        if name == "resized":
            checks.append((name, DEPTHS_RISE))
            continue
        checks.append((name, READABLE))
        if name in boxes:
            checks.append((name, FITS_BOX))
        if family.kind == "photo":
            checks.append((name, NOTHING_PRIVATE))
    return [*checks, ("metadata", AGREEMENT)]


def spread(catalog: PostgresCatalog, family: Family, most: int) -> Iterator[Image]:
    """Ready images, read in pages: at most `most` at even distances, or all if it is 0."""
    total = sum(
        count.count
        for count in catalog.counts()
        if (count.kind, count.state) == (family.kind, "ready")
    )
    step = -(-total // most) if most else 1
    after = position = 0
    while page := catalog.page(limit=PAGE_ROWS, after_id=after, kind=family.kind, state="ready"):
        for image in page:
            if position % max(1, step) == 0:
                yield image
            position += 1
        after = page[-1].id


def agreement_of(
    keys: Sequence[str], catalog: PostgresCatalog, source: Source, known: set[str]
) -> Findings:
    """Whether bucket, table and partitions agree about these images.

    Args:
        keys: Object keys to compare.
        catalog: The table.
        source: The bucket; keys that it does not answer for are skipped.
        known: Partition keys that Dagster has.

    Raises:
        Trouble: The store or the database does not answer.
    """
    findings = Findings()
    rows = catalog.by_keys(keys)
    there, unknown = look_at(source, keys)
    for key in keys:
        image = rows.get(key)
        if key in unknown:
            findings.skipped += 1
        elif image is None or image.state == "deleted":
            is_missed = image is None and there[key] is not None
            findings.add(key, "lies in the bucket and has no row" if is_missed else None)
        elif there[key] is None and image.gone_at is None:
            findings.add(key, "has a row, and its upload is gone")
        else:
            findings.add(key, _without_partition(image, known))
    return findings


def agreement(
    family: Family, catalog: PostgresCatalog, source: Source, instance: dg.DagsterInstance
) -> Findings:
    """Whether bucket, table and partitions agree about all images of a family.

    It keeps in memory the partition keys, at most `IMGFLOW_HOT_PARTITIONS`, and one page of the
    listing.

    Raises:
        Trouble: The store or the database does not answer.
    """
    name = str(family.partitions.name)
    known = set(instance.get_dynamic_partitions(name))
    findings = Findings()
    looks = (_in_bucket(family, catalog, source), _in_partitions(family, catalog, known))
    suspicious = dict(islice(chain.from_iterable(looks), MOST_SUSPICIOUS))
    findings.examined = len(known)
    # Images that arrived, were processed or were deleted meanwhile are no differences.
    known = set(instance.get_dynamic_partitions(name))
    again = agreement_of(sorted(suspicious), catalog, source, known)
    rows = catalog.by_keys(sorted(suspicious))
    for key, problem in suspicious.items():
        is_owned = key in rows and rows[key].in_partitions
        is_orphan = problem == ORPHAN and not is_owned and partition_key(key) in known
        if is_orphan or key in again.named:
            findings.report(key, problem)
    return findings


def _in_bucket(
    family: Family, catalog: PostgresCatalog, source: Source
) -> Iterator[tuple[str, str]]:
    """Objects without a row, and rows whose object is gone unnoticed."""
    after = None
    while True:
        page = source.list_page(after, LISTED_OBJECTS)
        keys = [upload.key for upload in page.objects]
        rows = catalog.by_keys(keys)
        for key in keys:
            if key not in rows and kind_of(key) == family.kind:
                yield key, "lies in the bucket and has no row"
        for image in catalog.vanished(after, page.resume_after, [*keys, *page.unfinished]):
            if image.kind == family.kind and image.state != "deleted":
                yield image.key, "has a row, and its upload is gone"
        if page.resume_after is None:
            return
        after = page.resume_after


def _in_partitions(
    family: Family, catalog: PostgresCatalog, known: set[str]
) -> Iterator[tuple[str, str]]:
    """Rows without their partition, and partitions without a row."""
    left = set(known)
    after = 0
    while page := catalog.page(
        limit=PAGE_ROWS, after_id=after, kind=family.kind, in_partitions=True
    ):
        for image in page:
            left.discard(partition_key(image.key))
            if problem := _without_partition(image, known):
                yield image.key, problem
        after = page[-1].id
    leaving = {partition_key(key) for key in catalog.leaving(family.kind, most=len(left))}
    for partition in sorted(left - leaving):
        yield object_key(partition), ORPHAN


def _without_partition(image: Image, known: set[str]) -> str | None:
    if image.in_partitions and partition_key(image.key) not in known:
        return "has a row, and Dagster lost its partition"
    return None
