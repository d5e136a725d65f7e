"""Reports events of single images, and evaluations of checks, in a run over many images.

Their contents come from `materializations` and `checks.asset_checks`; storing them is in
`dagster_storage.event_log`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter

import dagster as dg

from imgflow.orchestration.dagster_storage.event_log import (
    BulkPostgresEventLogStorage,
    ImageEvent,
    report_evaluation,
    report_level,
)


def report_images(context: dg.AssetExecutionContext, events: Sequence[ImageEvent]) -> None:
    """Store events as those of the running step.

    They bypass the console's log handlers, whose formatting costs a third of the bookkeeping.

    Raises:
        Trouble: The database did not answer, even after retries.
    """
    if not events:
        return
    step = context.get_step_execution_context()
    storage = context.instance.event_log_storage
    levels = _levels(events)
    if isinstance(storage, BulkPostgresEventLogStorage):
        storage.store_images(step, levels)
        return
    for level in levels:
        report_level(context.instance, step, level)


def report_evaluations(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    evaluations: Iterable[dg.AssetCheckEvaluation],
) -> None:
    """Report evaluations of asset checks for the running step, also those of single partitions.

    Dagster's public way, yielding check results, has no partitions and needs the check to be
    selected in the run.
    """
    found = list(evaluations)
    if not found:
        return
    step = context.get_step_execution_context()
    storage = context.instance.event_log_storage
    if isinstance(storage, BulkPostgresEventLogStorage) and not storage.are_planned(
        step.run_id, found
    ):
        storage.store_evaluations(step, found)
        return
    for evaluation in found:
        report_evaluation(step, evaluation)


def _levels(events: Sequence[ImageEvent]) -> list[list[ImageEvent]]:
    """Group events by level of the asset graph, and sort each level by asset."""
    by_asset: dict[dg.AssetKey, list[ImageEvent]] = {}
    for event in events:
        by_asset.setdefault(event.asset_key, []).append(event)
    inputs = {key: {name for e in found for name in e.inputs} for key, found in by_asset.items()}
    graph = TopologicalSorter(inputs)
    graph.prepare()
    levels = []
    while graph.is_active():
        keys = sorted(graph.get_ready(), key=lambda key: key.to_user_string())
        levels.append([event for key in keys for event in by_asset.get(key, ())])
        graph.done(*keys)
    return [level for level in levels if level]
