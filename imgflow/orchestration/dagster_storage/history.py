"""What Dagster knows of one image: what was made of it and when, and what failed."""

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

# What a run that has made nothing of an image says about it; any other is waiting or going on.
ENDS = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
    dg.DagsterRunStatus.SUCCESS: "left out",  # deleted meanwhile, or done by another run
}


@dataclass(frozen=True)
class Event:
    """One event of an asset of an image.

    Attributes:
        time: with its time zone.
        asset: its key, such as `photo/thumbnail`.
        outcome: `made`, `noop` or, of an uploaded object, `seen`; of a run that made nothing of the
            asset `failed`, `canceled`, `left out` or `in progress`.
        run_id: of Dagster.
        data_version: of what was made or found.
    """

    time: datetime
    asset: str
    outcome: str
    run_id: str
    data_version: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "time": self.time.isoformat()}

    def line(self) -> str:
        """For people, in UTC."""
        version = f"  version {self.data_version}" if self.data_version else ""
        return (
            f"{self.time:%Y-%m-%d %H:%M:%S}  {self.asset}: {self.outcome}  "
            f"run {self.run_id[:8]}{version}"
        )


def history(
    instance: dg.DagsterInstance, family: Family, image: Image, *, most: int = MOST_EVENTS
) -> list[Event]:
    """The newest events of an image, newest first; of a sealed or deleted one too.

    Args:
        instance: whose event log is asked, a few times for each asset.
        family: of the image.
        image: which one.
        most: events.

    Raises:
        SettingsError: the instance keeps its events elsewhere than in PostgreSQL.
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
        if len(made) == most:  # what runs before the oldest of them have made is not known here
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
    """What became of runs that were to make an asset and have not."""
    if not planned:
        return
    for record in instance.get_run_records(dg.RunsFilter(run_ids=sorted(planned))):
        run = record.dagster_run
        yield Event(
            # A failure is known when the run ends.
            time=_time(record.end_time) if record.end_time else planned[run.run_id],
            asset=asset.to_user_string(),
            outcome=ENDS.get(run.status, "in progress"),
            run_id=run.run_id,
        )


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
