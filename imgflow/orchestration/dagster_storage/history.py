"""The history of one image in Dagster: what was made of it and when, and what failed.

It shows only what the event log still has. The API reads the same with SQL alone, in
`catalog.postgres.event_history`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.records import Image
from imgflow.orchestration.dagster_storage.queries import planned_runs
from imgflow.orchestration.families import Family

MOST_EVENTS = 20

# Outcome by status of a run that made nothing of an image; with any other status it is in progress.
ENDS = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
    dg.DagsterRunStatus.SUCCESS: "left out",  # deleted meanwhile, or done by another run
}


@dataclass(frozen=True)
class Event:
    """One event of an asset of an image.

    Attributes:
        time: Time of the event, in UTC.
        asset: Asset key, such as `photo/thumbnail`.
        outcome: `made`, `noop` or, for an uploaded object, `seen`. For a run that did not make the
            asset: `failed`, `canceled`, `left out` or `in progress`.
        data_version: Version of what was made or seen; None if nothing was.
    """

    time: datetime
    asset: str
    outcome: str
    run_id: str
    data_version: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The event as JSON, for programs."""
        return {**asdict(self), "time": self.time.isoformat()}

    def line(self) -> str:
        """The event as one line for people, with its time in UTC."""
        version = f"  version {self.data_version}" if self.data_version else ""
        return (
            f"{self.time:%Y-%m-%d %H:%M:%S}  {self.asset}: {self.outcome}  "
            f"run {self.run_id[:8]}{version}"
        )


def history(
    instance: dg.DagsterInstance, family: Family, image: Image, *, most: int = MOST_EVENTS
) -> list[Event]:
    """The newest events of an image, newest first, even if it is sealed or deleted.

    Args:
        instance: Its event log is queried a few times for each asset.
        family: The image's family, which decides the assets.
        image: The row of the image.
        most: Maximum number of events.

    Raises:
        SettingsError: The instance does not keep its events in PostgreSQL.
    """
    events: list[Event] = []
    for asset in (family.source, *sorted(family.made)):
        wanted = dg.AssetRecordsFilter(asset, asset_partitions=[partition_key(image.key)])
        made = [
            _made(record, is_source=asset == family.source)
            for record in instance.fetch_materializations(wanted, limit=most).records
        ]
        events += made
        if asset == family.source:
            continue
        planned = planned_runs(instance, asset, partition_key(image.key), most=most)
        if len(made) == most:  # what earlier runs made was not read
            planned = {run_id: time for run_id, time in planned.items() if time >= made[-1].time}
        not_made = {run_id: planned[run_id] for run_id in planned.keys() - {e.run_id for e in made}}
        events += _not_made(instance, asset, not_made)
    return sorted(events, key=lambda event: event.time, reverse=True)[:most]


def _made(record: dg.EventLogRecord, *, is_source: bool) -> Event:
    materialization = record.asset_materialization
    if materialization is None:
        raise AssertionError("Dagster gives materialisations where it is asked for them")
    noop = materialization.metadata.get("noop")
    return Event(
        time=_time(record.timestamp),
        asset=materialization.asset_key.to_user_string(),
        outcome="seen" if is_source else "noop" if noop and noop.value else "made",
        run_id=record.run_id,
        data_version=(materialization.tags or {}).get("dagster/data_version"),
    )


def _not_made(
    instance: dg.DagsterInstance, asset: dg.AssetKey, planned: Mapping[str, datetime]
) -> Iterator[Event]:
    """The outcomes of runs that were planned to make an asset but did not."""
    if not planned:
        return
    for record in instance.get_run_records(dg.RunsFilter(run_ids=sorted(planned))):
        run = record.dagster_run
        yield Event(
            # A run counts as failed from its end on.
            time=_time(record.end_time) if record.end_time else planned[run.run_id],
            asset=asset.to_user_string(),
            outcome=ENDS.get(run.status, "in progress"),
            run_id=run.run_id,
        )


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
