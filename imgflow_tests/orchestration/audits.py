"""What asset checks say: of a run, of an audit, of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from imgflow.service.ingest import QUIET
from imgflow_tests.orchestration.project import Project

Found = dict[tuple[str, str], dg.AssetCheckEvaluation]
"""By asset and check."""


def why(project: Project, run: dg.ExecuteInProcessResult) -> str:
    """What a run that failed said."""
    failed = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    entries = project.instance.all_logs(run.run_id, of_type=failed)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    data = [event.event_specific_data for event in events]
    errors = [getattr(one, "error", None) for one in data]
    return "\n".join([*(str(event.message) for event in events), *map(str, errors)])


def evaluations(project: Project, result: Any) -> list[dg.AssetCheckEvaluation]:
    """What checks said in a run, of all images and of single ones."""
    events = (entry.dagster_event for entry in project.instance.all_logs(result.run_id))
    found = [event.event_specific_data for event in events if event]
    return [one for one in found if isinstance(one, dg.AssetCheckEvaluation)]


def summaries(found: Sequence[dg.AssetCheckEvaluation]) -> Found:
    return {
        (one.asset_key.to_user_string(), one.check_name): one
        for one in found
        if one.partition is None
    }


def audit(project: Project, tags: dict[str, str] | None = None, **config: Any) -> Found:
    """All checks of both families, as a person launches them or the schedule does."""
    values = {"most": 0, **config}
    ops = {f"{kind}_checks": {"config": values} for kind in ("photo", "depth")}
    result = project.definitions.resolve_job_def("audit").execute_in_process(
        {**QUIET, "ops": ops}, instance=project.instance, tags=tags, raise_on_error=False
    )
    assert result.success, why(project, result)
    return summaries(evaluations(project, result))


def failing(found: Found) -> dict[tuple[str, str], str]:
    return {name: str(one.description) for name, one in found.items() if not one.passed}


def stored(project: Project, key: str, output: str) -> Path:
    name = project.catalog.by_keys([key])[key].outputs[output]["name"]
    _, outputs = project.stores.locations()
    return outputs.folder / name


def of_image(project: Project, name: tuple[str, str], partition: str) -> dg.AssetCheckEvaluation:
    """The newest evaluation of one image."""
    records = project.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(name[0].split("/")), name[1]), limit=100
    )
    found = [
        record.event.dagster_event.event_specific_data
        for record in records
        if record.partition == partition and record.event and record.event.dagster_event
    ]
    assert found
    evaluation = found[0]
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return evaluation
