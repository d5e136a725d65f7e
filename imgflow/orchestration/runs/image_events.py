"""Events of single images in a run over many: what happened to an asset of a partition."""

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

    They go past the console's log handlers, whose formatting costs a third of the bookkeeping.

    Raises:
        Trouble: the database does not answer, again and again.
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
    """Report evaluations of asset checks as those of the running step, also of single partitions.

    The public way, results of a check, knows no partition and needs the check to be a part of the
    run.
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
    """Sort events by the levels of the asset graph, and those of a level by asset."""
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
