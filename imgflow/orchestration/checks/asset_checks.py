"""Asset checks: the defects a person would find by looking, reported at the assets that have them.

None of them is partitioned, or Dagster would plan a row for every check and image of a run. A run's
evaluation covers all images examined; each defective image also gets one for its partition. How
images are examined is in `examine`, what counts as a defect in `judge`.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from imgflow.catalog.partition_keys import object_key, partition_key
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.errors import Trouble
from imgflow.foreign_text import markdown, visible
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.orchestration.checks.examine import (
    Check,
    Examination,
    agreement,
    agreement_of,
    checks_of,
    spread,
)
from imgflow.orchestration.checks.judge import (
    ADVICE,
    AGREEMENT,
    DESCRIPTIONS,
    ERRORS,
    Findings,
)
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from imgflow.orchestration.dagster_storage.queries import failing_partitions
from imgflow.orchestration.families import MAINTENANCE_TAG, Family
from imgflow.orchestration.resources import CatalogResource, StoresResource
from imgflow.orchestration.runs.image_events import report_evaluations

# How many of a run's images are examined: one in a hundred costs a hundredth of the time it took to
# make them, and a few in a small run cost less than its launch.
SAMPLE_IMAGES = 8
FEWEST_IMAGES = 2
IMAGES_PER_SAMPLE = 100

PAGE_KEYS = 500

AUDIT_JOB = "audit"


class CheckConfig(dg.Config):
    """What an operator may set in the launchpad."""

    keys: list[str] = Field(
        default=[], description="Object keys to examine. Empty: the partitions of the run, or all."
    )
    most: int = Field(
        default=1_000,
        ge=0,
        description="Of all images, examine so many at even distances; 0: every one.",
    )


def boxes_of(family: Family, recipe: PhotoRecipe) -> dict[str, tuple[int, int]]:
    """Maximum width and height of pictures, by output."""
    boxes = {"thumbnail": recipe.thumbnail_size, "proof": recipe.proof_size}
    return {name: box for name, box in boxes.items() if name in family.outputs}


def family_checks(family: Family, recipe: PhotoRecipe) -> dg.AssetChecksDefinition:
    """Define the checks of a family; each object is read once for all of them."""
    boxes = boxes_of(family, recipe)

    @dg.multi_asset_check(
        name=f"{family.kind}_checks",
        specs=[
            dg.AssetCheckSpec(check, asset=family.output(name), description=DESCRIPTIONS[check])
            for name, check in checks_of(family, boxes)
        ],
        can_subset=True,
    )
    def examine(
        context: dg.AssetCheckExecutionContext,
        config: CheckConfig,
        catalog: CatalogResource,
        stores: StoresResource,
    ) -> Iterator[dg.AssetCheckResult]:
        selected = frozenset(
            (key.asset_key.path[-1], key.name) for key in context.selected_asset_check_keys
        )
        keys = config.keys or _keys_of_run(context, family)
        with catalog.open(stores.source_name) as rows:
            examination = Examination(family, selected, rows, stores.open_outputs, boxes)
            images = _rows(rows, keys) if keys else spread(rows, family, config.most)
            found = examination.images(images)
            if ("metadata", AGREEMENT) in selected:
                source = stores.open_source()
                if keys:
                    known = context.instance.get_dynamic_partitions(str(family.partitions.name))
                    found["metadata", AGREEMENT] = agreement_of(keys, rows, source, set(known))
                else:
                    found["metadata", AGREEMENT] = agreement(family, rows, source, context.instance)
        scope = "selected images" if keys else "all images"
        if not keys and config.most:
            scope = f"at most {config.most:,} of all images, at even distances"
        examined = None if not keys and not config.most else keys
        each = _each_image(family, found, context.instance, examined)
        report_evaluations(context.op_execution_context, each)
        for check, findings in found.items():
            whole = "all images" if check[1] == AGREEMENT and not keys else scope
            evaluation = _evaluation(family, check, findings, whole)
            yield dg.AssetCheckResult(
                asset_key=evaluation.asset_key,
                check_name=evaluation.check_name,
                passed=evaluation.passed,
                severity=evaluation.severity,
                description=evaluation.description,
                metadata=evaluation.metadata,
            )

    return examine


def audit(
    definitions: Sequence[dg.AssetChecksDefinition],
) -> tuple[Any, dg.ScheduleDefinition]:
    """Define the job that examines every image, and its schedule.

    The job is typed `Any` because its class is private to Dagster.

    Args:
        definitions: The checks of all families.
    """
    job = dg.define_asset_job(
        AUDIT_JOB,
        selection=dg.AssetSelection.checks(*definitions),
        description="All checks on all images.",
        tags={MAINTENANCE_TAG: "true"},
        config={
            "ops": {definition.node_def.name: {"config": {"most": 0}} for definition in definitions}
        },
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="nightly_audit",
        job=job,
        description="All checks on all images.",
        cron_schedule="30 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return job, schedule


class Sample:
    """A uniform random sample of bounded size, drawn from keys as they come in."""

    def __init__(self, seed: str, most: int = SAMPLE_IMAGES) -> None:
        """Start empty; the same seed and keys give the same sample."""
        self._keys: list[str] = []
        self._random = random.Random(seed)  # noqa: S311 - decides what is looked at, not a secret
        self._most = most
        self._seen = 0

    def add(self, keys: Iterable[str]) -> None:
        """Offer keys to the sample."""
        for key in keys:
            self._seen += 1
            place = self._random.randrange(self._seen)
            if len(self._keys) < self._most:
                # At a random position, so that the first few are a uniform sample too.
                self._keys.append(key)
                self._keys[place], self._keys[-1] = key, self._keys[place]
            elif place < self._most:
                self._keys[place] = key

    @property
    def keys(self) -> list[str]:
        """The sample: one in a hundred of the offered keys, but at least two and at most `most`."""
        share = self._seen // IMAGES_PER_SAMPLE
        return self._keys[: max(FEWEST_IMAGES, share)]


def examine_sample(
    context: dg.AssetExecutionContext, examination: Examination, sample: Sequence[str]
) -> None:
    """Examine a few of the images that a run made, so that a defect shows up on the same day.

    If that is impossible, it is only logged: no check is evaluated, and the run, whose images are
    done, does not fail.
    """
    try:
        if sample:
            _examine_sample(context, examination, sample)
    # Everything, even a bug in judging: after the last row and event, an error here would fail a
    # run whose images are done, and have it retried for them.
    except Exception as error:
        cause = str(error) if isinstance(error, Trouble) else f"{type(error).__name__}: {error}"
        cause = visible(cause, keep="\n")
        context.log.warning(f"The images of this run could not be examined: {cause}")


def _examine_sample(
    context: dg.AssetExecutionContext, examination: Examination, sample: Sequence[str]
) -> None:
    family = examination.family
    found = examination.images(examination.catalog.by_keys(sample).values())
    scope = "a sample of the images of this run"
    evaluations = [
        *_each_image(family, found, context.instance, sample),
        *(
            _evaluation(family, check, findings, scope)
            for check, findings in found.items()
            if findings.examined
        ),
    ]
    report_evaluations(context, evaluations)


def _keys_of_run(context: dg.AssetCheckExecutionContext, family: Family) -> list[str]:
    """Object keys of the run's partitions; empty for a run without partitions."""
    tags = context.run.tags
    if partition := tags.get(PARTITION_NAME_TAG):
        return [object_key(partition)]
    first, last = (
        tags.get(name) for name in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    )
    if first is None or last is None:
        return []
    known = context.instance.get_dynamic_partitions(str(family.partitions.name))
    if first not in known or last not in known:
        return []  # the range belongs to the other family
    between = known[known.index(first) : known.index(last) + 1]
    return [object_key(partition) for partition in between]


def _rows(catalog: PostgresCatalog, keys: Sequence[str]) -> Iterator[Image]:
    for start in range(0, len(keys), PAGE_KEYS):
        yield from catalog.by_keys(keys[start : start + PAGE_KEYS]).values()


def _each_image(
    family: Family,
    found: Mapping[Check, Findings],
    instance: dg.DagsterInstance,
    examined: Sequence[str] | None,
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluations of single images: first those that are fixed, then those with a defect.

    In this order, since Dagster shows the last evaluation of a check as its status.

    Args:
        family: Maps the checks' outputs to asset keys.
        found: The findings, by check.
        instance: Knows which partitions failed earlier.
        examined: Object keys that were certainly examined; None for all.
    """
    surely = {check: f for check, f in found.items() if f.defective <= len(f.named)}
    keys = {check: (family.output(check[0]), check[1]) for check in surely}
    partitions = None if examined is None else [partition_key(key) for key in examined]
    failing = failing_partitions(instance, list(keys.values()), partitions)
    for check, findings in surely.items():
        for partition in failing.get(keys[check], ()):
            key = object_key(partition)
            if key not in findings.named:
                yield _of_image(family, check, key, None)
    for check, findings in found.items():
        for key, problem in findings.named.items():
            yield _of_image(family, check, key, problem)


def _of_image(
    family: Family, check: Check, key: str, problem: str | None
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=family.output(check[0]),
        check_name=check[1],
        passed=problem is None,
        severity=_severity(check),
        description=f"{markdown(key)}: {markdown(problem or 'fixed')}",
        partition=partition_key(key),
    )


def _evaluation(
    family: Family, check: Check, findings: Findings, scope: str
) -> dg.AssetCheckEvaluation:
    """The unpartitioned evaluation of a check, for all images that were examined."""
    name = check[1]
    metadata: dict[str, Any] = {
        "examined": findings.examined,
        "scope": scope,
        "defective": findings.defective,
    }
    if findings.skipped:
        metadata["skipped"] = findings.skipped
    if findings.named:
        metadata["images"] = dg.MetadataValue.md(
            "\n".join(f"- {markdown(k)}: {markdown(p)}" for k, p in findings.named.items())
        )
        metadata["advice"] = ADVICE[name]
    passed = not findings.defective
    first, problem = map(markdown, next(iter(findings.named.items()), ("", "")))
    return dg.AssetCheckEvaluation(
        asset_key=family.output(check[0]),
        check_name=name,
        passed=passed,
        severity=_severity(check),
        description=f"{findings.examined:,} examined, no defect"
        if passed
        else f"{findings.defective:,} of {findings.examined:,} defective, such as {first}: "
        f"{problem}. {ADVICE[name]}",
        metadata=metadata,
    )


def _severity(check: Check) -> dg.AssetCheckSeverity:
    severities = dg.AssetCheckSeverity
    return severities.ERROR if check[1] in ERRORS else severities.WARN
